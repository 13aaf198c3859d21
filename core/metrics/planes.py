"""What every metric accepts, and the units it computes in.

A pair is two `Image`s, (H, W, 3) uint8 or uint16, of equal shape and dtype. Metrics compute in float64 on the fixed
range 0..255: 8-bit levels as they are, 16-bit levels divided by 257, so that white is 255 for both and the
constants of the papers hold. Float arrays are refused: they could hold NaN, and their range would be a guess.


Separable filters on float64 planes, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Field, Image
from ..errors import UsageError

__all__ = [
    "PEAK",
    "check_image",
    "check_pair",
    "check_size",
    "gaussian_taps",
    "luma",
    "mean_2x2",
    "planes",
    "smooth",
    "valid",
]

PEAK = 255.0
_LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_BT601 = (0.299, 0.587, 0.114)


def check_image(image: NDArray[Any]) -> None:
    """Refuse whatever is not an `Image` with at least one pixel (UsageError)."""
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype not in _LEVELS:
        raise UsageError(
            f"a metric was given an array of shape {image.shape} and dtype {image.dtype}; "
            "it takes images of shape (height, width, 3) and dtype uint8 or uint16"
        )


def check_pair(a: NDArray[Any], b: NDArray[Any]) -> None:
    """Refuse a pair that cannot be compared: not images, or of different shape or dtype (UsageError)."""
    check_image(a)
    check_image(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise UsageError(
            f"a metric was given images of {a.shape} {a.dtype} and {b.shape} {b.dtype}; "
            "both must have the same size and bit depth: crop or convert one of them"
        )


def check_size(metric: str, image: Image, side: int) -> None:
    """Refuse an image whose shorter side is below `side` pixels (UsageError)."""
    height, width = image.shape[:2]
    if min(height, width) < side:
        raise UsageError(f"{metric} was given an image of {width} x {height} pixels; it needs at least {side} x {side}")


def planes(image: Image) -> Field:
    """The three channels as (3, H, W) float64 in [0, 255]."""
    scale = PEAK / _LEVELS[image.dtype]
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


def mean_2x2(field: Field) -> Field:
    """Means of 2 x 2 blocks of an (H, W) field with even H and W."""
    return (field[::2, ::2] + field[1::2, ::2] + field[::2, 1::2] + field[1::2, 1::2]) / 4
