from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pocketprior.core.metrics import ms_ssim, ssim


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


@pytest.mark.parametrize("times", [1, 6])
def test_ms_ssim_equals_piq_where_halving_is_unambiguous(photo, damage, piq, times):
    other = damage.noisy(damage.blurred(photo, times), 10)
    assert ms_ssim(photo, other) == pytest.approx(piq.ms_ssim(photo, other), abs=1e-12)


def test_ms_ssim_of_odd_sizes_is_near_that_of_even_ones(photo, damage):
    other = damage.noisy(photo, 10)
    assert ms_ssim(photo[:-1, :-1], other[:-1, :-1]) == pytest.approx(ms_ssim(photo, other), abs=1e-3)


def test_ms_ssim_of_a_negative_is_zero(photo):
    assert ms_ssim(photo, 255 - photo) == 0


@pytest.mark.parametrize("metric", [ssim, ms_ssim])
def test_identity_symmetry_and_order(photo, damage, metric):
    weak, strong = damage.noisy(photo, 5), damage.noisy(photo, 25)
    assert metric(photo, photo) == pytest.approx(1, abs=1e-12)
    assert metric(photo, weak) == pytest.approx(metric(weak, photo), abs=1e-12)
    assert metric(photo, weak) > metric(photo, strong)
    assert metric(photo, damage.blurred(photo, 1)) > metric(photo, damage.blurred(photo, 4))


def test_a_colour_error_counts(photo):
    assert ssim(photo, photo[..., ::-1]) < 0.95
