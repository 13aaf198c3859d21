from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations import realworld


@pytest.mark.parametrize("ranges", [realworld.FIRST, realworld.SECOND], ids=["first", "second"])
def test_probabilities_add_up_and_ranges_rise(ranges: realworld.DamageRanges) -> None:
    assert sum(ranges.resize) == pytest.approx(1)
    for low, high in (ranges.sigma, ranges.scale, ranges.gaussian, ranges.poisson):
        assert low < high


def test_blur_kernels_have_7_to_21_pixels_and_add_up_to_one() -> None:
    kernels = [realworld.blur_kernel((0.2, 3.0), np.random.default_rng(seed)) for seed in range(200)]
    assert {len(kernel) for kernel in kernels} == set(range(7, 22, 2))
    np.testing.assert_allclose([kernel.sum() for kernel in kernels], 1, atol=1e-5)
    assert any(kernel.min() < -1e-3 for kernel in kernels)  # sinc filters ring
    assert sum(np.abs(kernel - kernel.T).max() < 1e-6 for kernel in kernels) > 100  # most are round


def test_scales_are_those_of_the_stage() -> None:
    scales = np.array([realworld._scale(realworld.FIRST, np.random.default_rng(seed)) for seed in range(400)])
    assert (scales == 1).mean() == pytest.approx(0.1, abs=0.05)
    assert (scales > 1).mean() == pytest.approx(0.2, abs=0.07)
    assert 0.15 <= scales.min() < 0.25
    assert 1.3 < scales.max() <= 1.5


@pytest.mark.parametrize(("size", "factor"), [((64, 48), 2), ((63, 47), 4), ((1, 1), 4), ((3, 40), 2)])
def test_result_has_the_small_size_and_range(waves, size: tuple[int, int], factor: int) -> None:
    image = waves[: size[0], : size[1]]
    for seed in range(12):
        small = realworld.degrade_and_downsample(image, factor, np.random.default_rng(seed))
        assert small.shape == (-(-size[0] // factor), -(-size[1] // factor), 3)
        assert small.dtype == np.float32
        assert small.min() >= 0
        assert small.max() <= 1


def test_grey_noise_is_the_same_in_all_channels() -> None:
    """40 % of the draws."""
    flat = np.full((16, 16, 3), 0.5, np.float32)
    noises = [realworld._noisy(flat, realworld.FIRST, np.random.default_rng(seed)) - flat for seed in range(200)]
    assert np.mean([np.ptp(noise, axis=2).max() < 1e-6 for noise in noises]) == pytest.approx(0.4, abs=0.1)
