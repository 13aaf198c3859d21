from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pocketprior.core.degradations import blur, filters
from pocketprior.core.degradations.filters import (
    blend,
    enlarge,
    jpeg,
    linear_to_srgb,
    quantize,
    resize,
    shifted_jpeg,
    shrink,
    srgb_to_linear,
)
from pocketprior.core.photo.io import read


def test_quantize_gives_the_levels_of_a_file(waves) -> None:
    levels = quantize(waves) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert np.abs(quantize(waves) - waves).max() <= 0.5 / 255 + 1e-6
    assert quantize(np.array([-1, 2], np.float32)).tolist() == [0, 1]


@pytest.mark.parametrize(("value", "linear"), [(0, 0), (0.04045, 0.0031308), (0.5, 0.21404), (1, 1)])
def test_light_is_the_srgb_curve(value: float, linear: float) -> None:
    assert srgb_to_linear(np.array(value, np.float32)) == pytest.approx(linear, abs=1e-5)
    assert linear_to_srgb(np.array(linear, np.float32)) == pytest.approx(value, abs=1e-4)


def test_encoding_undoes_light_at_every_level() -> None:
    levels = (np.arange(256) / 255).astype(np.float32)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(levels)), levels, atol=1e-6)
    assert srgb_to_linear(levels).dtype == np.float32


def test_blend_goes_from_one_to_the_other(waves) -> None:
    white = np.ones(3, np.float32)
    assert blend(waves, white, np.float32(0)).tobytes() == waves.tobytes()
    np.testing.assert_allclose(blend(waves, white, np.float32(1)), 1, atol=1e-6)
    np.testing.assert_allclose(blend(waves, white, np.float32(0.25)), 0.75 * waves + 0.25, atol=1e-6)


def test_jpeg_loses_more_at_lower_quality(waves) -> None:
    errors = [np.square(jpeg(waves, quality) - waves).mean() for quality in (95, 50, 10)]
    assert errors == sorted(errors)
    assert errors[0] < errors[2]


def seam(image: np.ndarray) -> int:
    """Column (0 to 7) of the 8x8 grid at which neighbours differ most: the block border."""
    steps = np.abs(np.diff(image.mean(axis=2), axis=1)).sum(axis=0)
    return int(np.argmax([steps[(column - 1) % 8 :: 8].mean() for column in range(8)]))


def test_blocks_begin_at_the_corner_or_where_they_are_shifted_to(rng) -> None:
    busy = np.clip(0.5 + 0.2 * rng.standard_normal((128, 128, 3)), 0, 1).astype(np.float32)
    assert seam(jpeg(busy, 5, "4:4:4")) == 0
    assert seam(shifted_jpeg(busy, np.array((0, 3)), 5, "4:4:4")) == 5
    assert seam(np.rot90(shifted_jpeg(busy, np.array((2, 0)), 5, "4:4:4"), 3)[:, ::-1]) == 6
    assert shifted_jpeg(busy, np.array((7, 7)), 5, "4:2:0").shape == busy.shape


def test_colour_is_kept_at_half_resolution_only_when_subsampled() -> None:
    colour = np.zeros((32, 32, 3), np.float32)
    colour[:, ::2, 0] = 1
    error = {kind: np.abs(jpeg(colour, 95, kind) - colour).mean() for kind in ("4:4:4", "4:2:0")}
    assert error["4:2:0"] > 5 * error["4:4:4"]


def test_fully_toned_image_has_one_hue(waves) -> None:
    sepia = np.array([1.0, 0.9, 0.7], np.float32)
    toned = filters.tinted(waves, sepia, 1.0)
    np.testing.assert_allclose(toned / toned[..., :1], np.broadcast_to(sepia, toned.shape), atol=1e-5)
    np.testing.assert_allclose(filters.tinted(waves, sepia, 0.0), waves)


def test_gaussian_blur_keeps_a_constant_and_no_blur_keeps_all(waves) -> None:
    flat = np.full((9, 7, 3), 0.3, np.float32)
    np.testing.assert_allclose(filters.gaussian_blur(flat, 1.2), flat, atol=1e-6)
    assert filters.gaussian_blur(waves, 1.0).std() < waves.std()
    assert filters.gaussian_blur(waves, 0.0) is waves


def test_gaussian_blur_agrees_with_scipy(waves) -> None:
    expected = ndimage.gaussian_filter(waves, (1.1, 1.1, 0), mode="nearest", radius=(4, 4, 0))
    np.testing.assert_allclose(filters.gaussian_blur(waves, 1.1), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 48), (7, 31), (1, 1)])
def test_convolution_agrees_with_scipy(waves, shape: tuple[int, int], rng) -> None:
    image = waves[: shape[0], : shape[1]]
    kernel = rng.random((9, 13), dtype=np.float32)
    kernel /= kernel.sum()
    expected = ndimage.convolve(image, kernel[..., np.newaxis], mode="nearest")
    np.testing.assert_allclose(filters.convolve(image, kernel), expected, atol=2e-6)
    np.testing.assert_allclose(filters.convolve(image[..., 0], kernel), expected[..., 0], atol=2e-6)


def test_convolution_inside_leaves_the_margin_out(waves) -> None:
    kernel = blur.gaussian(7, (1.0, 2.0), 0.3)
    inside = filters.convolve_inside(waves, kernel)
    np.testing.assert_allclose(inside, filters.convolve(waves, kernel)[3:-3, 3:-3], atol=1e-6)


def test_transforms_have_fast_sizes() -> None:
    assert [filters._fast_size(size) for size in (1, 7, 11, 96, 121, 127)] == [1, 8, 12, 96, 125, 128]


def test_sample_is_bilinear_and_mirrors(waves) -> None:
    y, x = np.array([3, 3.5, -2, 64, 0.0], np.float32), np.array([4, 4, 5, 47, -1.5], np.float32)
    found = filters.sample(waves, y, x)
    np.testing.assert_allclose(found[0], waves[3, 4])
    np.testing.assert_allclose(found[1], (waves[3, 4] + waves[4, 4]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[2], waves[2, 5])
    np.testing.assert_allclose(found[3], waves[62, 47])
    np.testing.assert_allclose(found[4], (waves[0, 1] + waves[0, 2]) / 2, atol=1e-6)


def test_sample_of_a_single_pixel() -> None:
    pixel = np.full((1, 1, 3), 0.4, np.float32)
    np.testing.assert_allclose(filters.sample(pixel, np.array([-3.2], np.float32), np.array([8], np.float32)), 0.4)


def by_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    channels = [Image.fromarray(image[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=2)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrink_is_antialiased_bicubic(factor: int, rng) -> None:
    """Pillow has the same kernel; it renormalises at the edges, where MATLAB mirrors."""
    image = rng.random((48, 72, 3), dtype=np.float32)
    inside = slice(3, -3)
    expected = by_pillow(image, 48 // factor, 72 // factor)
    np.testing.assert_allclose(shrink(image, factor)[inside, inside], expected[inside, inside], atol=2e-6)


def test_enlarge_is_bicubic(rng) -> None:
    image = rng.random((20, 14, 3), dtype=np.float32)
    expected = by_pillow(image, 80, 56)
    np.testing.assert_allclose(enlarge(image, 4)[8:-8, 8:-8], expected[8:-8, 8:-8], atol=2e-6)


def test_shrink_gives_the_numbers_of_imresize() -> None:
    """imresize(0:7, 0.5): the weights are (-3 -9 29 111 111 29 -9 -3) / 256, and the edges are mirrored."""
    ramp = np.repeat(np.arange(8, dtype=np.float32)[np.newaxis, :, np.newaxis], 3, axis=2)
    weights = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    line = np.concatenate([[2, 1, 0], np.arange(8), [7, 6, 5]])
    expected = [weights @ line[2 * i : 2 * i + 8] for i in range(4)]
    np.testing.assert_allclose(shrink(ramp, 2)[0, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "factor", "expected"), [((5, 7), 2, (3, 4)), ((1, 1), 4, (1, 1)), ((9, 8), 4, (3, 2))]
)
def test_size_is_rounded_up(size: tuple[int, int], factor: int, expected: tuple[int, int]) -> None:
    small = shrink(np.full((*size, 3), 0.25, np.float32), factor)
    assert small.shape == (*expected, 3)
    np.testing.assert_allclose(small, 0.25, atol=1e-6)


def test_enlarged_lies_where_it_was(waves) -> None:
    """No shift: a smooth image comes back nearly as it was."""
    assert np.abs(enlarge(shrink(waves, 2), 2) - waves)[4:-4, 4:-4].max() < 0.01


@pytest.mark.parametrize("kernel", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
def test_any_kernel_keeps_a_constant(kernel, antialias: bool) -> None:
    flat = np.full((11, 17, 3), 0.6, np.float32)
    resized = resize(flat, 5, 29, kernel, antialias=antialias)
    assert resized.shape == (5, 29, 3)
    np.testing.assert_allclose(resized, 0.6, atol=1e-6)


def test_area_is_the_mean_of_the_pixels(rng) -> None:
    image = rng.random((12, 9, 3), dtype=np.float32)
    expected = image.reshape(4, 3, 3, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, 4, 3, "area", antialias=True), expected, atol=1e-6)


def test_without_antialiasing_points_are_sampled(rng) -> None:
    image = rng.random((9, 9, 3), dtype=np.float32)
    np.testing.assert_allclose(resize(image, 3, 3, "bilinear", antialias=False), image[1::3, 1::3], atol=1e-6)


EXAMPLES = Path(__file__).parents[3] / "examples"


def test_flat_photo_is_all_structure() -> None:
    flat = np.full((17, 23, 3), 0.6, np.float32)
    np.testing.assert_allclose(filters.structure(flat), flat, atol=1e-5)


def test_texture_goes_and_edges_stay() -> None:
    rng = np.random.default_rng(0)
    step = np.zeros((64, 64, 3), np.float32)
    step[:, 32:] = 1
    grained = np.clip(step + 0.02 * rng.standard_normal(step.shape, dtype=np.float32), 0, 1)
    smooth = filters.structure(grained)
    assert smooth[:, :28].std() < 0.3 * grained[:, :28].std()
    assert (smooth[:, 36:].mean() - smooth[:, :28].mean()) > 0.95


def test_lines_are_solved_exactly() -> None:
    """The tridiagonal sweep equals a dense solution of (1 + weight A) u = signal."""
    rng = np.random.default_rng(1)
    signal = rng.random((9, 2, 3), dtype=np.float32)
    coupling = rng.random((8, 2), dtype=np.float32)
    solved = filters._solve_rows(signal, coupling, 7.0)
    for line in range(2):
        laplacian = np.zeros((9, 9))
        for i, c in enumerate(coupling[:, line]):
            laplacian[i : i + 2, i : i + 2] += c * np.array([[1, -1], [-1, 1]])
        expected = np.linalg.solve(np.eye(9) + 7.0 * laplacian, signal[:, line].astype(float))
        np.testing.assert_allclose(solved[:, line], expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 2)])
def test_smallest_photos(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).random((*shape, 3), dtype=np.float32)
    smooth = filters.structure(image)
    assert smooth.shape == image.shape
    assert np.isfinite(smooth).all()


def test_real_photo_keeps_most_of_itself() -> None:
    photo = read(EXAMPLES / "dog.jpg").pixels[::2, ::2].astype(np.float32) / 255
    error = np.square(filters.structure(photo) - photo).mean()
    assert 24 < -10 * np.log10(error) < 34
