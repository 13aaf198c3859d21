"""Baselines that our models are compared with: a null texture, and BM3D.

A null texture is something cheap that is added to the result of the predictor: its own finest detail once more (an
unsharp mask), or grey noise that is strong where there is detail. A diffusion texture prior must beat both to be worth
its time. The gain is the one at which the mean PSNR over the photos of a trial is that of the model they are compared
with, so that neither side pays more for its texture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image
from ..degradations import gaussian_blur
from ..degradations.fixed import image_digest
from ..errors import MissingExtraError

__all__ = ["NULLS", "NullResult", "bm3d", "bm3d_version", "detail", "null_result", "shaped_noise"]

_LARGEST_GAIN = 8.0
_BISECTIONS = 24  # more than any gain needs
_CLOSE = 0.002  # dB: how near the mean PSNR must come
_DETAIL_SIGMA = 1.0  # pixels; the finest band of a Laplacian pyramid is the image minus about this blur

Texture = Callable[[Image], NDArray[np.float32]]


class NullResult(NamedTuple):
    """The best that a null texture can do."""

    gain: float
    images: list[Image]  # one per photo
    psnr: float  # the mean that was reached, dB


def null_result(
    texture: Texture,
    bases: Sequence[Image],
    truths: Sequence[Image],
    psnr: Callable[[Image, Image], float],
    target: float,
) -> NullResult:
    """A null texture on the results of the predictor, at the gain whose mean PSNR is `target` dB.

    Args:
        texture: One of NULLS, what is added.
        bases: Results of the predictor, (H, W, 3) uint8.
        truths: The true photo of each.
        psnr: Of a result and the truth, as the tables have it.
        target: Mean PSNR of the whole model. Where the predictor's is no better, the gain is 0.
    """
    textures = [texture(base) for base in bases]

    def made(gain: float) -> list[Image]:
        return [_added(base, gain, values) for base, values in zip(bases, textures, strict=True)]

    def mean_psnr(images: Sequence[Image]) -> float:
        return fmean(psnr(image, true) for image, true in zip(images, truths, strict=True))

    low, high = 0.0, _LARGEST_GAIN
    images = made(low)
    reached = mean_psnr(images)
    if reached <= target:
        return NullResult(low, images, reached)
    gain = low
    for _ in range(_BISECTIONS):
        gain = (low + high) / 2
        images = made(gain)
        reached = mean_psnr(images)
        if abs(reached - target) < _CLOSE:
            break
        low, high = (gain, high) if reached > target else (low, gain)
    return NullResult(gain, images, reached)


def detail(image: Image) -> NDArray[np.float32]:
    """The finest Laplacian band of an image, (H, W, 3) uint8, in grey levels."""
    floats = image.astype(np.float32)
    return floats - gaussian_blur(floats, _DETAIL_SIGMA)


def shaped_noise(image: Image) -> NDArray[np.float32]:
    """Grey noise as strong as the finest detail of the image where it is, (H, W, 3) in grey levels.

    The image seeds the noise, so that a repeated run draws the same.
    """
    seed = int.from_bytes(hashlib.sha256(f"shaped noise {image_digest(image)}".encode()).digest()[:8], "big")
    noise = np.random.default_rng(seed).standard_normal(image.shape[:2], dtype=np.float32)
    return np.repeat((noise * np.abs(detail(image)).mean(axis=2))[..., np.newaxis], 3, axis=2)


def bm3d(image: Image | NDArray[np.float64], sigma: float) -> Image:
    """Colour BM3D for noise of `sigma` grey levels: (H, W, 3) uint8. About 100 s per megapixel.

    image: (H, W, 3) grey levels from 0 to 255; floats may lie beyond. Raises MissingExtraError without the package
    bm3d, which is for non-commercial use only.
    """
    noisy = image / 255
    restored = _bm3d().bm3d_rgb(noisy, sigma / 255)
    # The package returns NaN for some blocks without any contrast; such a pixel needs no denoising.
    restored = np.where(np.isfinite(restored), restored, noisy)
    return np.floor(np.clip(restored, 0, 1) * 255 + 0.5).astype(np.uint8)


def bm3d_version() -> str:
    """The version of the package bm3d, which decides what `bm3d` returns. Raises MissingExtraError without it."""
    _bm3d()
    return version("bm3d")


def _added(base: Image, gain: float, values: NDArray[np.float32]) -> Image:
    return np.clip(np.round(base + np.float32(gain) * values), 0, 255).astype(np.uint8)


def _bm3d() -> Any:
    try:
        return import_module("bm3d")
    except ModuleNotFoundError as error:
        raise MissingExtraError("bm3d", "bench", "BM3D") from error


NULLS: dict[str, Texture] = {"unsharp mask": detail, "shaped noise": shaped_noise}
