"""The damage `mixed-v1`: what the task `cleanup` was until its mixture was widened. Frozen, bit for bit.

Figures of earlier models were measured with it, and comparisons with them use it. Change nothing here.
"""

from __future__ import annotations

import math

from numpy.random import Generator

from .compression import Subsampling, jpeg
from .filters import gaussian_blur
from .light import Picture, quantize
from .noise import gaussian_noise, poisson_noise

__all__ = ["mixed_v1"]


def mixed_v1(picture: Picture, rng: Generator) -> Picture:
    """Mild blur, noise and JPEG, each present or not; the result has 8-bit levels.

    Blur of sigma up to 1.2 pixels; Gaussian noise up to sigma 55, or shot noise of 30 to 1000 photons; quality 8 to 95.
    """
    kind = rng.random()
    if kind < 0.35:
        return quantize(_noise(picture, rng))
    if kind < 0.55:
        return _compression(picture, rng)
    if rng.random() < 0.5:
        picture = gaussian_blur(picture, rng.uniform(0.2, 1.2))
    if rng.random() < 0.75:
        picture = _noise(picture, rng)
    return _compression(picture, rng) if rng.random() < 0.75 else quantize(picture)


def _noise(picture: Picture, rng: Generator) -> Picture:
    if rng.random() < 0.75:
        return gaussian_noise(picture, rng.uniform(1, 55), rng)
    photons = math.exp(rng.uniform(math.log(30), math.log(1000)))
    return gaussian_noise(poisson_noise(picture, photons, rng), rng.uniform(0, 10), rng)


def _compression(picture: Picture, rng: Generator) -> Picture:
    subsampling: Subsampling = "4:2:0" if rng.random() < 0.75 else "4:4:4"
    return jpeg(picture, int(rng.integers(8, 96)), subsampling)
