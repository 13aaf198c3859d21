from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pocketprior.core.degradations import blur, filters


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
