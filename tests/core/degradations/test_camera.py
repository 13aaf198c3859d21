from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations.camera import Camera, mosaic_noise


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
