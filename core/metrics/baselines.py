"""Baselines that our models are compared with, a null texture and BM3D, and what counts as a difference from them.

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
from ..limits import FEWEST_PHOTOS

__all__ = ["NULLS", "NullResult", "PairedDifference", "bm3d", "bm3d_version", "null_result", "paired"]

_LARGEST_GAIN = 8.0
_BISECTIONS = 24  # more than any gain needs
_CLOSE = 0.002  # dB: how near the mean PSNR must come
_DETAIL_SIGMA = 1.0  # pixels; the finest band of a Laplacian pyramid is the image minus about this blur

_DRAWS = 10_000  # of the bootstrap
_TAILS = (0.025, 0.975)

Texture = Callable[[Image], NDArray[np.float32]]
Measure = Callable[[Image, Image], float]


class NullResult(NamedTuple):
    """The best that a null texture can do."""

    gain: float
    images: list[Image]  # one per photo
    psnr: float  # the mean that was reached, dB


def null_result(
    texture: Texture, bases: Sequence[Image], truths: Sequence[Image], psnr: Measure, target: float
) -> NullResult:
    """One of NULLS on `bases`, results of the predictor, (H, W, 3) uint8, at the gain whose mean PSNR is `target` dB.

    truths: the true photo of each; psnr: of a result and the truth, as the tables have it; target: mean PSNR of the
    whole model. Where the predictor's is no better, the gain is 0.
    """
    textures = [texture(base) for base in bases]

    def at(gain: float) -> NullResult:
        sums = [base + np.float32(gain) * values for base, values in zip(bases, textures, strict=True)]
        images: list[Image] = [np.clip(np.round(floats), 0, 255).astype(np.uint8) for floats in sums]
        return NullResult(gain, images, fmean(psnr(image, true) for image, true in zip(images, truths, strict=True)))

    low, high = 0.0, _LARGEST_GAIN
    result = at(low)
    if result.psnr <= target:
        return result
    for _ in range(_BISECTIONS):
        result = at((low + high) / 2)
        if abs(result.psnr - target) < _CLOSE:
            break
        low, high = (result.gain, high) if result.psnr > target else (low, result.gain)
    return result


def _detail(image: Image) -> NDArray[np.float32]:
    """The finest Laplacian band of an image, (H, W, 3) uint8, in grey levels."""
    floats = image.astype(np.float32)
    return floats - gaussian_blur(floats, _DETAIL_SIGMA)


def _shaped_noise(image: Image) -> NDArray[np.float32]:
    """Grey noise as strong as the finest detail where it is, (H, W, 3) in grey levels; always the same for an image."""
    seed = int.from_bytes(hashlib.sha256(f"shaped noise {image_digest(image)}".encode()).digest()[:8], "big")
    noise = np.random.default_rng(seed).standard_normal(image.shape[:2], dtype=np.float32)
    return np.repeat((noise * np.abs(_detail(image)).mean(axis=2))[..., np.newaxis], 3, axis=2)


class PairedDifference(NamedTuple):
    """The mean of paired differences and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float
    photos: int

    @property
    def shown(self) -> bool:
        """Whether the photos show a difference: the interval excludes 0, and there are enough of them."""
        return self.photos >= FEWEST_PHOTOS and not self.low <= 0 <= self.high


def paired(ours: Sequence[float], theirs: Sequence[float]) -> PairedDifference:
    """Ours minus theirs, photo by photo; a percentile bootstrap of the mean (Efron 1979) with a fixed seed.

    Raises ValueError for lists of different lengths and for empty ones.
    """
    differences = np.array([a - b for a, b in zip(ours, theirs, strict=True)], dtype=np.float64)
    count = len(differences)
    if count == 0:
        raise ValueError("no photo was measured with both methods; give at least one")
    draws = np.random.default_rng(0).integers(count, size=(_DRAWS, count))
    means: NDArray[np.float64] = differences[draws].mean(axis=1)
    low, high = (float(np.quantile(means, tail)) for tail in _TAILS)
    return PairedDifference(float(differences.mean()), low, high, count)


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


def _bm3d() -> Any:
    try:
        return import_module("bm3d")
    except ModuleNotFoundError as error:
        raise MissingExtraError("bm3d", "bench", "BM3D") from error


NULLS: dict[str, Texture] = {"unsharp mask": _detail, "shaped noise": _shaped_noise}
