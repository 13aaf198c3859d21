"""What damages a photo: one function per damage, and one per task that mixes them.

Every function takes and returns a clean float picture, (H, W, 3) float32 in [0, 1], and keeps its size.
Whatever is random is drawn from the `numpy.random.Generator` that is passed in: the same generator state
gives the same damage.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as PilImage

__all__ = [
    "TASKS",
    "cleanup",
    "gaussian_blur",
    "gaussian_noise",
    "jpeg",
    "poisson_noise",
    "quantize",
]

Picture: TypeAlias = NDArray[np.float32]
Subsampling: TypeAlias = Literal["4:4:4", "4:2:2", "4:2:0"]


def quantize(picture: Picture) -> Picture:
    """Round to the 256 levels of an 8-bit file, as saving a photo does. Clips to [0, 1]."""
    levels: Picture = np.floor(np.clip(picture, 0, 1) * np.float32(255) + np.float32(0.5))
    return levels / np.float32(255)


def gaussian_noise(picture: Picture, sigma: float, rng: Generator) -> Picture:
    """Add white Gaussian noise; `sigma` is its standard deviation in grey levels of 255. Not clipped."""
    noise = np.float32(sigma / 255) * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.add(picture, noise, dtype=np.float32)


def poisson_noise(picture: Picture, peak: float, rng: Generator) -> Picture:
    """Replace light by counted photons: a white pixel receives `peak` of them on average (shot noise)."""
    return (rng.poisson(np.clip(picture, 0, 1) * peak) / peak).astype(np.float32)


def gaussian_blur(picture: Picture, sigma: float) -> Picture:
    """Blur with a Gaussian of standard deviation `sigma` pixels; edges are replicated."""
    radius = int(np.ceil(3 * sigma))
    if radius == 0:
        return picture
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        picture = _correlate(picture, kernel, axis)
    return picture


def _correlate(picture: Picture, kernel: NDArray[np.float32], axis: int) -> Picture:
    radius = len(kernel) // 2
    pad = [(0, 0), (0, 0), (0, 0)]
    pad[axis] = (radius, radius)
    padded = np.pad(picture, pad, mode="edge")
    size = picture.shape[axis]
    out = np.zeros_like(picture)
    for i, weight in enumerate(kernel):
        out += weight * (padded[i : i + size] if axis == 0 else padded[:, i : i + size])
    return out


def jpeg(picture: Picture, quality: int, subsampling: Subsampling = "4:2:0") -> Picture:
    """Compress and decompress as JPEG; `quality` as libjpeg counts it, 1..100."""
    buffer = io.BytesIO()
    levels = (quantize(picture) * 255).astype(np.uint8)
    PilImage.fromarray(levels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    with PilImage.open(buffer) as decoded:
        return np.asarray(decoded, dtype=np.float32) / np.float32(255)


def cleanup(picture: Picture, rng: Generator) -> Picture:
    """The task `cleanup`: what phones and messengers do to a photo, at random strength.

    Mild blur (sigma up to 1.2 pixels), Gaussian noise (up to sigma 55) or shot noise (30 to 1000 photons), JPEG
    (quality 8 to 95), each present or not; the result has 8-bit levels.
    """
    kind = rng.random()
    if kind < 0.35:
        return quantize(_some_noise(picture, rng))
    if kind < 0.55:
        return _some_jpeg(picture, rng)
    if rng.random() < 0.5:
        picture = gaussian_blur(picture, rng.uniform(0.2, 1.2))
    if rng.random() < 0.75:
        picture = _some_noise(picture, rng)
    return _some_jpeg(picture, rng) if rng.random() < 0.75 else quantize(picture)


def _some_noise(picture: Picture, rng: Generator) -> Picture:
    if rng.random() < 0.75:
        return gaussian_noise(picture, rng.uniform(1, 55), rng)
    photons = math.exp(rng.uniform(math.log(30), math.log(1000)))
    return gaussian_noise(poisson_noise(picture, photons, rng), rng.uniform(0, 10), rng)


def _some_jpeg(picture: Picture, rng: Generator) -> Picture:
    subsampling: Subsampling = "4:2:0" if rng.random() < 0.75 else "4:4:4"
    return jpeg(picture, int(rng.integers(8, 96)), subsampling)


TASKS: dict[str, Callable[[Picture, Generator], Picture]] = {"cleanup": cleanup}
