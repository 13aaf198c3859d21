from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations import grain


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
