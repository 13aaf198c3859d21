"""How far two arrays are from each other: in float64, on a fixed scale, never NaN; and whether a limit allows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.arrays import Image
from ..limits import ParityLimit

__all__ = ["ArrayDifference", "as_unit", "breach", "measure", "scale_of"]


@dataclass(frozen=True)
class ArrayDifference:
    """What `measure` found, in units of the scale: 1 is white for an image. Broken values count in no other field."""

    max_abs: float
    rmse: float
    psnr_db: float  # -inf where all values are broken
    shift: float  # the mean difference of the channel that moved most, with its sign
    broken: int  # values that are not finite where they should be, or differ where they should not be finite
    count: int  # values that were compared


def measure(given: NDArray[Any], expected: NDArray[Any], scale: float = 1.0) -> ArrayDifference:
    """Compare two arrays of one shape, (1, C, H, W) or (1, N); ValueError for others and for empty ones."""
    if given.shape != expected.shape or given.size == 0:
        raise ValueError(f"expected two arrays of one shape with values in it, got {given.shape} and {expected.shape}")
    finite = np.isfinite(given) & np.isfinite(expected)
    distance = np.zeros(given.shape)
    distance[finite] = (given[finite].astype(np.float64) - expected[finite].astype(np.float64)) / scale
    rmse = math.sqrt(float(np.mean(np.square(distance))))
    means = distance.mean(axis=(0, 2, 3)) if distance.ndim == 4 else distance.mean(keepdims=True).ravel()
    return ArrayDifference(
        max_abs=float(np.abs(distance).max()),
        rmse=rmse,
        psnr_db=_decibels(rmse) if finite.any() else -math.inf,
        shift=float(means[np.abs(means).argmax()]),
        broken=int(np.count_nonzero(~finite & (given != expected))),
        count=int(finite.size),
    )


def _decibels(rmse: float) -> float:
    return math.inf if rmse == 0 else -20 * math.log10(rmse)


def scale_of(*expected: NDArray[Any], least: float = 1.0) -> float:
    """The unit for an array that is no image: the root mean square of its reference, but at least `least`.

    It depends only on the reference, so that a result that is far off cannot make its own error look small.
    """
    squares = sum(float(np.square(array[np.isfinite(array)], dtype=np.float64).sum()) for array in expected)
    return max(least, math.sqrt(squares / sum(array.size for array in expected)))


def as_unit(image: Image) -> NDArray[np.float64]:
    """An image (H, W, 3) as (1, 3, H, W) float64 in 0 to 1."""
    return (image.astype(np.float64) / np.iinfo(image.dtype).max).transpose(2, 0, 1)[np.newaxis]


def breach(found: ArrayDifference, limit: ParityLimit, *, image: bool) -> str:
    """In what way a difference exceeds a limit, '' if it does not; the mean shift is limited only for images."""
    if found.broken:
        return f"{found.broken} of {found.count} values are not finite"
    if found.psnr_db < limit.psnr_db:
        return f"{found.psnr_db:.1f} dB, expected at least {limit.psnr_db:.1f} dB"
    if found.max_abs > limit.max_abs:
        return f"one value is off by {found.max_abs:.2g}, allowed are {limit.max_abs:.2g}"
    if image and abs(found.shift) > limit.shift:
        return f"a channel is shifted by {found.shift:+.2g}, allowed are {limit.shift:.2g}"
    return ""
