"""Established denoisers that ours are compared with."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Image
from .errors import MissingExtraError

__all__ = ["bm3d", "bm3d_version"]


def bm3d(image: Image | NDArray[np.float64], sigma: float) -> Image:
    """Colour BM3D for noise of `sigma` grey levels: (H, W, 3) uint8. About 100 s per megapixel.

    image: (H, W, 3) grey levels from 0 to 255; floats may lie beyond. Raises MissingExtraError without the package
    bm3d, which is for non-commercial use only.
    """
    noisy = image / 255
    restored = _bm3d().bm3d_rgb(noisy, sigma / 255)
    # The package gives NaN for some blocks without any contrast; such a pixel needs no denoising.
    restored = np.where(np.isfinite(restored), restored, noisy)
    return np.floor(np.clip(restored, 0, 1) * 255 + 0.5).astype(np.uint8)


def bm3d_version() -> str:
    """The version of the package bm3d, which decides what `bm3d` gives. Raises MissingExtraError without it."""
    _bm3d()
    return version("bm3d")


def _bm3d() -> Any:
    try:
        return import_module("bm3d")
    except ModuleNotFoundError as error:
        raise MissingExtraError("bm3d", "bench", "BM3D") from error
