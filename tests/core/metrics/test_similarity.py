from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pocketprior.core.metrics import haarpsi, psnr, ssim


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_psnr_equals_scikit_image(dtype):
    peak = np.iinfo(dtype).max
    a, b = np.random.default_rng(0).integers(0, peak, (2, 33, 47, 3), dtype, endpoint=True)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=peak), rel=1e-12)


def test_psnr_of_known_errors():
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black + np.uint8(255)) == 0
    assert psnr(black, black + np.uint8(1)) == pytest.approx(20 * math.log10(255))


def test_psnr_identity_symmetry_and_order(photo, damage):
    weak, strong = damage.noisy(photo, 5), damage.noisy(photo, 20)
    assert psnr(photo, photo) == math.inf
    assert psnr(photo, weak) == psnr(weak, photo) > psnr(photo, strong)


def of_scikit_image(a: np.ndarray, b: np.ndarray) -> float:
    return structural_similarity(
        a.astype(np.float64),
        b.astype(np.float64),
        data_range=np.iinfo(a.dtype).max,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
    )


@pytest.mark.parametrize("sigma", [1, 15, 60])
def test_ssim_equals_scikit_image(photo, damage, sigma):
    other = damage.noisy(photo, sigma)
    assert ssim(photo, other) == pytest.approx(of_scikit_image(photo, other), abs=1e-12)


@pytest.mark.parametrize("size", [(11, 11), (12, 57), (64, 31)])
def test_ssim_equals_scikit_image_in_odd_sizes_and_sixteen_bits(size):
    a, b = np.random.default_rng(1).integers(0, 65535, (2, *size, 3), np.uint16, endpoint=True)
    assert ssim(a, b) == pytest.approx(of_scikit_image(a, b), abs=1e-12)


def test_ssim_equals_piq(photo, damage, piq):
    other = damage.blurred(photo, 2)
    assert ssim(photo, other) == pytest.approx(piq.ssim(photo, other, downsample=False), abs=1e-12)


def test_ssim_identity_symmetry_and_order(photo, damage):
    weak, strong = damage.noisy(photo, 5), damage.noisy(photo, 25)
    assert ssim(photo, photo) == pytest.approx(1, abs=1e-12)
    assert ssim(photo, weak) == pytest.approx(ssim(weak, photo), abs=1e-12)
    assert ssim(photo, weak) > ssim(photo, strong)
    assert ssim(photo, damage.blurred(photo, 1)) > ssim(photo, damage.blurred(photo, 4))


def test_a_colour_error_counts(photo):
    assert ssim(photo, photo[..., ::-1]) < 0.95


@pytest.mark.parametrize("size", [(240, 336), (239, 336), (240, 335), (51, 37), (16, 16), (17, 19)])
def test_haarpsi_equals_piq(photo, damage, piq, size):
    a, b = photo[: size[0], : size[1]], damage.noisy(photo, 12)[: size[0], : size[1]]
    assert haarpsi(a, b) == pytest.approx(piq.haarpsi(a, b), abs=1e-12)


def test_haarpsi_equals_piq_for_blur_and_sixteen_bits(photo, damage, piq):
    wide = [image.astype(np.uint16) * 257 for image in (photo, damage.blurred(photo, 3))]
    assert haarpsi(*wide) == pytest.approx(piq.haarpsi(*wide), abs=1e-12)


def test_haarpsi_identity_symmetry_and_order(photo, damage):
    weak, strong = damage.noisy(photo, 5), damage.noisy(photo, 25)
    assert haarpsi(photo, photo) == pytest.approx(1, abs=1e-12)
    assert haarpsi(photo, weak) == pytest.approx(haarpsi(weak, photo), abs=1e-12)
    assert 1 > haarpsi(photo, weak) > haarpsi(photo, strong) > 0
    assert haarpsi(photo, damage.blurred(photo, 1)) > haarpsi(photo, damage.blurred(photo, 4))
