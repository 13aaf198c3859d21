"""Noise that is not white is correlated as it says, and as strong as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations import grain
from pocketprior.core.degradations.filters import LUMA
from pocketprior.core.degradations.grain import Camera, mosaic_noise

SIDE = 256  # a correlation over so many samples is known to about 0.003


def neighbours(noise: np.ndarray, apart: int = 1) -> float:
    """Correlation of pixels that lie side by side, over all channels and both directions."""
    across = np.corrcoef(noise[:, :-apart].ravel(), noise[:, apart:].ravel())[0, 1]
    down = np.corrcoef(noise[:-apart].ravel(), noise[apart:].ravel())[0, 1]
    return float(across + down) / 2


def test_white_noise_is_white(rng) -> None:
    noise = grain.white(SIDE, SIDE, rng)
    assert noise.shape == (SIDE, SIDE, 3)
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert abs(neighbours(noise)) < 0.012
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0, 1.5])
def test_blurred_noise_is_correlated_as_its_kernel(sigma: float, rng) -> None:
    offsets = np.arange(-np.ceil(3 * sigma), np.ceil(3 * sigma) + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    expected = float((kernel[1:] * kernel[:-1]).sum() / (kernel**2).sum())
    assert neighbours(grain.blurred(SIDE, SIDE, sigma, rng)) == pytest.approx(expected, abs=0.02)


def test_blurred_noise_is_as_strong_at_its_border(rng) -> None:
    noise = np.concatenate([grain.blurred(16, 256, 1.5, rng) for _ in range(8)], axis=1)
    assert noise[0].std() == pytest.approx(noise[8].std(), rel=0.1)


@pytest.mark.parametrize("kernel", ["area", "bilinear", "bicubic"])
def test_enlarged_noise_is_correlated_and_shrunk_noise_hardly(kernel, rng) -> None:
    enlarged, shrunk = (grain.rescaled(SIDE, SIDE, factor, kernel, rng) for factor in (2.0, 0.4))
    assert neighbours(enlarged) > 0.4
    assert abs(neighbours(shrunk)) < 0.3
    assert abs(neighbours(enlarged, apart=8)) < 0.03


def test_half_denoised_noise_has_lost_its_finest_part(rng) -> None:
    weak, strong = (grain.blotchy(SIDE, SIDE, share, 1.5, rng) for share in (0.3, 0.9))
    assert 0 < neighbours(weak) < neighbours(strong)
    assert strong.std() < weak.std() < 1


def test_chroma_noise_keeps_the_luma_and_grey_noise_has_one_value(rng) -> None:
    noise = grain.white(64, 64, rng)
    np.testing.assert_allclose(grain.chroma_only(noise) @ LUMA, 0, atol=1e-6)
    assert grain.chroma_only(noise).std() > 0.5
    grey = grain.grey_only(noise)
    assert grey.shape == noise.shape
    assert np.ptp(grey, axis=2).max() == 0


@pytest.mark.parametrize("slope", [-0.8, 0.8])
def test_toned_noise_follows_brightness(slope: float, rng) -> None:
    image = np.zeros((SIDE, SIDE, 3), np.float32)
    image[:, SIDE // 2 :] = 1
    dark, bright = np.split(grain.toned(grain.white(SIDE, SIDE, rng), image, slope), 2, axis=1)
    assert dark.var() == pytest.approx(1 - slope, rel=0.03)
    assert bright.var() == pytest.approx(1 + slope, rel=0.03)


def test_deviation_is_in_grey_levels(rng) -> None:
    noise = grain.with_deviation(grain.blurred(64, 64, 1.0, rng), 25)
    assert noise.std() * 255 == pytest.approx(25, rel=1e-4)
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(grain.with_deviation(np.zeros((1, 1, 3), np.float32), 25), 0)


def test_gaussian_noise_has_the_given_sigma(rng) -> None:
    flat = np.full((200, 200, 3), 0.5, np.float32)
    assert (grain.gaussian_noise(flat, 25, rng) - flat).std() * 255 == pytest.approx(25, rel=0.01)


def test_poisson_noise_has_the_variance_of_counted_photons(rng) -> None:
    noisy = grain.poisson_noise(np.full((200, 200, 3), 0.4, np.float32), 100, rng)
    assert noisy.mean() == pytest.approx(0.4, rel=0.01)
    assert noisy.var() == pytest.approx(0.4 / 100, rel=0.02)


@pytest.mark.parametrize("level", [0.0, 0.1, 0.8])
def test_variance_of_sensor_noise_is_proportional_to_light_plus_read_noise(level: float, rng) -> None:
    flat = np.full((300, 300, 1), level, np.float32)
    noisy = grain.sensor_noise(flat, 0.01, 2e-4, rng)
    assert noisy.mean() == pytest.approx(level, abs=1e-3)
    assert noisy.var() == pytest.approx(0.01 * level + 2e-4, rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_developing_undoes_raw(waves, seed: int) -> None:
    camera = Camera.draw(np.random.default_rng(seed))
    np.testing.assert_allclose(camera.developed(camera.raw(waves)), waves, atol=4e-4)  # a tenth of a grey level


def test_raw_is_dark_and_in_range() -> None:
    """White needs no more than the sensor holds, so that nothing is clipped on the way."""
    for seed in range(20):
        raw = Camera.draw(np.random.default_rng(seed)).raw(np.ones((2, 2, 3), np.float32))
        assert raw.min() > 0
        assert raw.max() <= 1


def test_grey_light_reaches_all_colours_of_the_sensor_alike(rng) -> None:
    camera = Camera.draw(rng)
    np.testing.assert_allclose(camera.overlap.sum(axis=1), 1, atol=1e-6)
    developed = camera.developed(camera.raw(np.full((1, 1, 3), 0.6, np.float32)))
    assert np.ptp(developed) < 1e-5


def test_demosaiced_noise_is_what_bilinear_interpolation_makes(rng) -> None:
    noise = rng.standard_normal((12, 14, 3), dtype=np.float32)
    done = mosaic_noise(noise)
    np.testing.assert_allclose(done[2, 4, 0], noise[2, 4, 0], atol=1e-6)  # its own site
    np.testing.assert_allclose(done[2, 5, 0], (noise[2, 4, 0] + noise[2, 6, 0]) / 2, atol=1e-6)
    np.testing.assert_allclose(done[3, 5, 0], noise[2:5:2, 4:7:2, 0].mean(), atol=1e-6)
    cross = [noise[3, 4, 1], noise[5, 4, 1], noise[4, 3, 1], noise[4, 5, 1]]
    np.testing.assert_allclose(done[4, 4, 1], np.mean(cross), atol=1e-6)
    np.testing.assert_allclose(done[5, 5, 2], noise[5, 5, 2], atol=1e-6)


def test_demosaiced_noise_is_coupled_in_space(rng) -> None:
    done = mosaic_noise(rng.standard_normal((128, 128, 3), dtype=np.float32))
    assert np.corrcoef(done[:, :-1, 0].ravel(), done[:, 1:, 0].ravel())[0, 1] > 0.3


def test_grain_is_grey_and_strongest_in_mid_tones(rng) -> None:
    levels = np.repeat(np.array([0.02, 0.5, 0.98], np.float32), 300)[:, np.newaxis, np.newaxis]
    flat = np.broadcast_to(levels, (900, 100, 3))
    added = grain.film_grain(flat, 0.05, 0.6, rng) - flat
    assert np.ptp(added, axis=2).max() < 1e-6
    deviations = [part.std() for part in np.split(added, 3)]
    assert deviations[1] == pytest.approx(0.05, rel=0.1)
    assert max(deviations[0], deviations[2]) < 0.4 * deviations[1]
