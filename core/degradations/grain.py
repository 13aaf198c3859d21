"""Noise: Gaussian, Poisson and sensor noise, noise that is correlated over pixels or colours, and the camera around it.

The camera's processing and its inverse allow noise to be added where it arises, on the raw sensor. They follow
"Unprocessing Images for Learned Raw Denoising" (Brooks et al., arXiv 1811.11127, section 3).
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..arrays import FloatImage, Floats
from .filters import LUMA, Kernel, gaussian_blur, linear_to_srgb, resize, srgb_to_linear

__all__ = [
    "Camera",
    "blotchy",
    "blurred",
    "chroma_only",
    "film_grain",
    "gaussian_noise",
    "grey_only",
    "mosaic_noise",
    "poisson_noise",
    "rescaled",
    "sensed",
    "sensor_noise",
    "toned",
    "white",
    "with_deviation",
]

_CUBIC_RADIUS = 2  # pixels on either side that bicubic resizing reads

_SITES = ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))  # channel, row, column of a Bayer cell (RGGB)
_NEAR = np.array([0.5, 0.25, 0.5], np.float32)  # bilinear demosaicking: share of the four neighbours in each channel
_DIAGONAL = np.float32(0.25)  # and of the four diagonal ones, in red and blue


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


def sensed(image: FloatImage, mosaicked: float, rng: Generator) -> FloatImage:
    """An image with the noise of a random camera's sensor, demosaicked with the probability `mosaicked`. Not clipped.

    Shot noise 1e-4 to 1.2e-2, read noise around the power law of Brooks et al. (section 3.1). What processing does to
    the noise is kept, not what it does to the photo.
    """
    camera = Camera.draw(rng)
    raw = camera.raw(image)
    log_shot = rng.uniform(math.log(1e-4), math.log(1.2e-2))
    log_read = 2.18 * log_shot + 1.20 + rng.normal(0, 0.26)
    noise = sensor_noise(raw, math.exp(log_shot), math.exp(log_read), rng) - raw
    if rng.random() < mosaicked:
        noise = mosaic_noise(noise)
    return image + camera.developed(np.clip(raw + noise, 0, 1)) - camera.developed(raw)


class Camera(NamedTuple):
    """The colour processing between the sensor and the file."""

    overlap: NDArray[np.float32]  # (3, 3), rows add up to 1: how the sensor's colours mix red, green and blue light
    gains: NDArray[np.float32]  # (3,): white balance times exposure

    @classmethod
    def draw(cls, rng: Generator) -> Camera:
        """A plausible camera: neighbouring colours overlap by 10 to 30 %, red and blue are amplified."""
        red, blue = rng.uniform(0.1, 0.3, 2)
        left, right = rng.uniform(0.1, 0.25, 2)
        overlap = [[1 - red, red, 0], [left, 1 - left - right, right], [0, blue, 1 - blue]]
        balance = np.array([rng.uniform(1.9, 2.4), 1.0, rng.uniform(1.5, 1.9)])
        return cls(np.array(overlap, np.float32), (balance * max(rng.normal(1.25, 0.15), 1.0)).astype(np.float32))

    def raw(self, image: FloatImage) -> NDArray[np.float32]:
        """The sensor's counts, linear, (H, W, 3) in [0, 1]: tone curve, sRGB curve, colours and gains undone."""
        return _look_up(_undeveloped(), image) @ self.overlap.T / self.gains

    def developed(self, raw: NDArray[np.float32]) -> FloatImage:
        """The inverse of `raw`, in [0, 1]."""
        back = np.linalg.inv(self.overlap).T.astype(np.float32)
        return _look_up(_tone(), np.matmul(raw * self.gains, back, dtype=np.float32))


def mosaic_noise(noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Noise (H, W, 3) of single pixels -> the same after bilinear demosaicing: blotchy, and correlated over pixels.

    Only the noise is demosaiced: the photo came from a file and is as sharp as it gets.
    """
    kept = np.zeros_like(noise)
    for channel, row, column in _SITES:
        kept[row::2, column::2, channel] = noise[row::2, column::2, channel]
    padded = np.pad(kept, ((1, 1), (1, 1), (0, 0)), mode="edge")
    above, below, left, right = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    near = kept + (above + below + left + right) * _NEAR
    near[..., ::2] += (padded[:-2, :-2] + padded[:-2, 2:] + padded[2:, :-2] + padded[2:, 2:])[..., ::2] * _DIAGONAL
    return near.astype(np.float32, copy=False)


def film_grain(image: FloatImage, sigma: float, size: float, rng: Generator) -> FloatImage:
    """Film grain: grey noise of `sigma` (share of white), clumps of `size` pixels; most in mid tones. Not clipped."""
    clumps = gaussian_blur(rng.standard_normal(image.shape[:2], dtype=np.float32), size)
    strength = np.float32(sigma / max(float(clumps.std()), 1e-6))
    grey = np.clip(image @ LUMA, 0, 1)
    visible = (4 * grey * (1 - grey) + 0.2) / 1.2
    return (image + (strength * clumps * visible)[..., np.newaxis]).astype(np.float32)


def white(height: int, width: int, rng: Generator) -> FloatImage:
    """Independent samples of standard deviation 1."""
    return rng.standard_normal((height, width, 3), dtype=np.float32)


def blurred(height: int, width: int, sigma: float, rng: Generator) -> FloatImage:
    """White noise after a Gaussian blur of `sigma` pixels."""
    return blotchy(height, width, 1.0, sigma, rng)


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


def _look_up(table: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values, clipped to [0, 1], looked up in a table over [0, 1]."""
    places = np.clip(values, 0, 1) * np.float32(len(table) - 1) + np.float32(0.5)
    return table.take(places.astype(np.intp))


@cache
def _undeveloped() -> NDArray[np.float32]:
    """Light of tone-mapped sRGB values, at 16 steps to each of the 255 of a file."""
    values = np.linspace(0, 1, 16 * 255 + 1)
    return srgb_to_linear((0.5 - np.sin(np.arcsin(1 - 2 * values) / 3)).astype(np.float32))


@cache
def _tone() -> NDArray[np.float32]:
    """Tone-mapped sRGB values of light, to less than a tenth of a grey level."""
    values = linear_to_srgb(np.linspace(0, 1, 2**15 + 1, dtype=np.float32))
    return np.clip(values * values * (3 - 2 * values), 0, 1)
