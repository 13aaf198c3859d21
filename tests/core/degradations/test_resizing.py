from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pocketprior.core.degradations.filters import enlarge, resize, shrink


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
