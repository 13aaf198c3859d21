"""Photos from the wild, shrunk: blur, resizing, noise and JPEG, twice over.

The two-stage pipeline of Real-ESRGAN (Wang et al., arXiv 2107.10833, section 3 and its published settings).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from ..arrays import FloatImage, Plane
from . import blur
from .filters import LUMA, Kernel, convolve, jpeg, resize
from .grain import gaussian_noise, sensor_noise

__all__ = ["FIRST", "SECOND", "DamageRanges", "blur_kernel", "damaged", "degrade_and_downsample"]

_RESIZERS: tuple[Kernel, ...] = ("area", "bilinear", "bicubic")
_FINAL_SINC = 0.8  # probability of the last filter


class DamageRanges(NamedTuple):
    """One round of damage. Pairs are (lowest, highest) of uniform draws."""

    blur: float  # probability
    sigma: tuple[float, float]  # of the blur, pixels
    resize: tuple[float, float, float]  # probabilities of up, down, keep
    scale: tuple[float, float]
    gaussian: tuple[float, float]  # sigma in grey levels
    poisson: tuple[float, float]  # multiple of the shot noise of 256 photons


FIRST = DamageRanges(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3.0))
SECOND = DamageRanges(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5))


def degrade_and_downsample(image: FloatImage, factor: int, rng: Generator) -> FloatImage:
    """(H, W, 3) -> (ceil(H / factor), ceil(W / factor), 3) in [0, 1]: both stages, then the final size.

    The last JPEG comes before or after the last resizing and its sinc filter, each half of the time.
    """
    height, width = (-(-size // factor) for size in image.shape[:2])
    worn = _compressed(damaged(image, FIRST, image.shape[:2], rng), rng)
    worn = damaged(worn, SECOND, (height, width), rng)
    if rng.random() < 0.5:
        return _compressed(_finished(worn, height, width, rng), rng)
    return _finished(_compressed(worn, rng), height, width, rng)


def damaged(image: FloatImage, ranges: DamageRanges, base: tuple[int, ...], rng: Generator) -> FloatImage:
    """Blur, resize (to a random multiple of the size `base`) and noise; in [0, 1]."""
    if rng.random() < ranges.blur:
        image = convolve(image, blur_kernel(ranges.sigma, rng))
    scale = _scale(ranges, rng)
    height, width = (max(1, round(size * scale)) for size in base[:2])
    image = np.clip(_resized(image, height, width, rng), 0, 1)
    return np.clip(_noisy(image, ranges, rng), 0, 1)


def _scale(ranges: DamageRanges, rng: Generator) -> float:
    kind = rng.choice(3, p=ranges.resize)
    return (rng.uniform(1, ranges.scale[1]), rng.uniform(ranges.scale[0], 1), 1.0)[kind]


def _resized(image: FloatImage, height: int, width: int, rng: Generator) -> FloatImage:
    kernel = _RESIZERS[rng.integers(3)]
    return resize(image, height, width, kernel, antialias=kernel == "area")


def _noisy(image: FloatImage, ranges: DamageRanges, rng: Generator) -> FloatImage:
    grey = rng.random() < 0.4  # the same noise in all channels
    values = (image @ LUMA)[..., np.newaxis] if grey else image
    if rng.random() < 0.5:
        noisy = gaussian_noise(values, rng.uniform(*ranges.gaussian), rng)
    else:
        noisy = sensor_noise(values, rng.uniform(*ranges.poisson) ** 2 / 256, 0.0, rng)
    return (image + (noisy - values)).astype(np.float32)


def blur_kernel(sigma: tuple[float, float], rng: Generator) -> Plane:
    """A random kernel of 7 to 21 pixels; `sigma` bounds its standard deviations."""
    size = 2 * int(rng.integers(3, 11)) + 1
    if rng.random() < 0.1:
        return blur.sinc(size, rng.uniform(math.pi / (3 if size < 13 else 5), math.pi))
    family = rng.choice(3, p=(0.7, 0.15, 0.15))
    round_one = rng.random() < (0.45 / 0.7 if family == 0 else 0.8)
    first, second = rng.uniform(*sigma), rng.uniform(*sigma)
    axes, angle = (first, first if round_one else second), rng.uniform(-math.pi, math.pi)
    if family == 2:
        return blur.plateau(size, axes, angle, rng.uniform(1, 2))
    return blur.gaussian(size, axes, angle, rng.uniform(0.5, 4) if family == 1 else 1.0)


def _finished(image: FloatImage, height: int, width: int, rng: Generator) -> FloatImage:
    image = _resized(image, height, width, rng)
    if rng.random() < _FINAL_SINC:
        size = 2 * int(rng.integers(3, 11)) + 1
        image = convolve(image, blur.sinc(size, rng.uniform(math.pi / 3, math.pi)))
    return np.clip(image, 0, 1)


def _compressed(image: FloatImage, rng: Generator) -> FloatImage:
    return jpeg(image, int(rng.integers(30, 96)))
