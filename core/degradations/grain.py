"""Noise: white, correlated over pixels or colours, signal-dependent; Gaussian, Poisson and sensor noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from ..arrays import FloatImage, Floats
from .filters import Kernel, gaussian_blur, resize
from .srgb import LUMA

__all__ = [
    "blotchy",
    "blurred",
    "chroma_only",
    "gaussian_noise",
    "grey_only",
    "poisson_noise",
    "rescaled",
    "sensor_noise",
    "toned",
    "white",
    "with_deviation",
]


_CUBIC_RADIUS = 2  # pixels on either side that bicubic resizing reads


def gaussian_noise(image: FloatImage, sigma: float, rng: Generator) -> FloatImage:
    """Add white Gaussian noise; `sigma` is its standard deviation in grey levels of 255. Not clipped."""
    noise = np.float32(sigma / 255) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.add(image, noise, dtype=np.float32)


def poisson_noise(image: FloatImage, peak: float, rng: Generator) -> FloatImage:
    """Replace light by counted photons: a white pixel receives `peak` of them on average (shot noise)."""
    return (rng.poisson(np.clip(image, 0, 1) * peak) / peak).astype(np.float32)


def sensor_noise(linear: Floats, shot: float, read: float, rng: Generator) -> Floats:
    """Noise of a sensor for linear light in [0, 1] of any shape: Gaussian, variance shot * linear + read. Not clipped.

    The heteroscedastic Gaussian model of Foi et al. (IEEE TIP 2008), as Brooks et al. use it (arXiv 1811.11127, Eq. 1).
    """
    deviation = np.sqrt(np.float32(shot) * np.clip(linear, 0, 1) + np.float32(read))
    return linear + deviation * rng.standard_normal(linear.shape, dtype=np.float32)


def white(height: int, width: int, rng: Generator) -> FloatImage:
    """Independent samples of standard deviation 1."""
    return rng.standard_normal((height, width, 3), dtype=np.float32)


def blurred(height: int, width: int, sigma: float, rng: Generator) -> FloatImage:
    """White noise after a Gaussian blur of `sigma` pixels."""
    margin = math.ceil(3 * sigma)
    wide = gaussian_blur(white(height + 2 * margin, width + 2 * margin, rng), sigma)
    return wide[margin : margin + height, margin : margin + width]


def rescaled(height: int, width: int, factor: float, kernel: Kernel, rng: Generator) -> FloatImage:
    """The noise of a photo that was resized by `factor` after it was noised."""
    margin = _CUBIC_RADIUS * math.ceil(max(1.0, factor))
    tall, broad = height + 2 * margin, width + 2 * margin
    small = white(math.ceil(tall / factor), math.ceil(broad / factor), rng)
    return resize(small, tall, broad, kernel, antialias=True)[margin : margin + height, margin : margin + width]


def blotchy(height: int, width: int, share: float, sigma: float, rng: Generator) -> FloatImage:
    """The residue of a denoiser that removes `share` (0 to 1) of all detail finer than `sigma` pixels."""
    margin = math.ceil(3 * sigma)
    noise = white(height + 2 * margin, width + 2 * margin, rng)
    kept = noise * np.float32(1 - share) + gaussian_blur(noise, sigma) * np.float32(share)
    return kept[margin : margin + height, margin : margin + width].astype(np.float32, copy=False)


def chroma_only(noise: FloatImage) -> FloatImage:
    """Without the part that changes the luma."""
    return np.subtract(noise, (noise @ LUMA)[..., np.newaxis], dtype=np.float32)


def grey_only(noise: FloatImage) -> FloatImage:
    """The same in all three channels."""
    return np.broadcast_to(noise[..., :1], noise.shape)


def toned(noise: FloatImage, image: FloatImage, slope: float) -> FloatImage:
    """Variance times 1 - slope in black, 1 + slope in white; slope in (-1, 1)."""
    return noise * np.sqrt((1 - slope) + np.float32(2 * slope) * np.clip(image, 0, 1))


def with_deviation(noise: FloatImage, sigma: float) -> FloatImage:
    """Scaled to a standard deviation of `sigma` grey levels of 255, as an image's share of white."""
    deviation = float(noise.std()) if noise.size else 0.0
    return noise * np.float32(sigma / 255 / max(deviation, 1e-6))
