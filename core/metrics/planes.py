"""What every metric accepts, the units it computes in, and its filters.

A pair is two `Image`s of equal shape and dtype. Metrics compute in float64 on the fixed range 0..255: 8-bit grey levels
as they are, 16-bit ones divided by 257, so that white is 255 for both and the constants of the papers hold. Float
arrays are refused: they could hold NaN, and their range would be a guess.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Field, Image
from ..errors import UsageError

__all__ = ["PEAK", "check_image", "check_pair", "gaussian_taps", "luma", "planes", "smooth", "valid"]

PEAK = 255.0
_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_BT601 = (0.299, 0.587, 0.114)


def check_image(image: NDArray[Any], metric: str = "", side: int = 1) -> None:
    """Raise UsageError unless `image` is an `Image` whose shorter side has at least the `side` pixels of a `metric`."""
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype not in _WHITE:
        raise UsageError(
            f"metrics expect images uint8 or uint16 of shape (height, width, 3), got {image.dtype} {image.shape}"
        )
    height, width = image.shape[:2]
    if min(height, width) < side:
        raise UsageError(f"{metric} needs images of at least {side} x {side} pixels, got {width} x {height}")


def check_pair(a: NDArray[Any], b: NDArray[Any], metric: str = "", side: int = 1) -> None:
    """Raise UsageError for a pair that cannot be compared: not images, of different shape or dtype, or too small."""
    check_image(a)
    check_image(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise UsageError(
            f"metrics expect two images of one size and bit depth, got {a.dtype} {a.shape} and {b.dtype} {b.shape}; "
            "crop or convert one of them"
        )
    check_image(a, metric, side)


def planes(image: Image) -> Field:
    """The three channels as (3, H, W) float64 in [0, 255]."""
    scale = PEAK / _WHITE[image.dtype]
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float64) * scale


def luma(image: Image) -> Field:
    """ITU-R BT.601 luma of the gamma-encoded channels as (H, W) float64 in [0, 255], not rounded."""
    red, green, blue = planes(image)
    return _BT601[0] * red + _BT601[1] * green + _BT601[2] * blue


def gaussian_taps(radius: int, sigma: float) -> Field:
    """2 radius + 1 samples of a Gaussian of standard deviation `sigma`, with sum 1."""
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return taps / taps.sum()


def valid(field: Field, taps: Field, axis: int) -> Field:
    """Correlate along `axis` (0 or 1 of a 2-D field) without padding: that axis shrinks by len(taps) - 1."""
    moved = np.moveaxis(field, axis, 0)
    size = len(moved) - len(taps) + 1
    out = taps[0] * moved[:size]
    term = np.empty_like(out)
    for i in range(1, len(taps)):
        np.multiply(moved[i : i + size], taps[i], out=term)
        out += term
    return np.moveaxis(out, 0, axis)


def smooth(field: Field, taps: Field) -> Field:
    """`valid` along both axes: (H, W) -> (H - n + 1, W - n + 1)."""
    return valid(valid(field, taps, 0), taps, 1)
