"""Noise: of no cause in particular, of counted photons, of a sensor."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .light import Picture

__all__ = ["gaussian_noise", "poisson_noise", "sensor_noise"]


def gaussian_noise(picture: Picture, sigma: float, rng: Generator) -> Picture:
    """Add white Gaussian noise; `sigma` is its standard deviation in grey levels of 255. Not clipped."""
    noise = np.float32(sigma / 255) * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.add(picture, noise, dtype=np.float32)


def poisson_noise(picture: Picture, peak: float, rng: Generator) -> Picture:
    """Replace light by counted photons: a white pixel receives `peak` of them on average (shot noise)."""
    return (rng.poisson(np.clip(picture, 0, 1) * peak) / peak).astype(np.float32)


def sensor_noise(light: NDArray[np.float32], shot: float, read: float, rng: Generator) -> NDArray[np.float32]:
    """Noise of a sensor for linear light in [0, 1] of any shape: Gaussian, variance shot * light + read. Not clipped.

    The heteroscedastic Gaussian model of Foi et al. (IEEE TIP 2008), as Brooks et al. use it (arXiv 1811.11127, Eq. 1).
    """
    deviation = np.sqrt(np.float32(shot) * np.clip(light, 0, 1) + np.float32(read))
    return light + deviation * rng.standard_normal(light.shape, dtype=np.float32)
