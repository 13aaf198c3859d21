"""How far two arrays are from one another: in float64, on a fixed scale, and never NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.arrays import Image

__all__ = ["Difference", "as_unit", "measure", "scale_of"]


@dataclass(frozen=True)
class Difference:
    """What `measure` found, in units of the scale: 1 is white for a picture.

    shift: the mean difference of the channel that moved most, with its sign. broken: values that are not finite where
    they should be, or not the same where they should not; the other numbers are about the rest, psnr_db is -inf where
    there is none. count: values that were compared.
    """

    max_abs: float
    rmse: float
    psnr_db: float
    shift: float
    broken: int
    count: int


def measure(given: NDArray[Any], expected: NDArray[Any], scale: float = 1.0) -> Difference:
    """Compare arrays of one shape: (1, C, H, W), or vectors (1, N); ValueError for arrays that cannot be compared."""
    if given.shape != expected.shape or given.size == 0:
        raise ValueError(f"arrays of shape {given.shape} and {expected.shape} cannot be compared")
    finite = np.isfinite(given) & np.isfinite(expected)
    distance = np.zeros(given.shape)
    distance[finite] = (given[finite].astype(np.float64) - expected[finite].astype(np.float64)) / scale
    rmse = math.sqrt(float(np.mean(np.square(distance))))
    means = distance.mean(axis=(0, 2, 3)) if distance.ndim == 4 else distance.mean(keepdims=True).ravel()
    return Difference(
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
    """The unit for an array that is no picture: the root mean square of its reference, or `least` where that is more.

    It follows from the reference alone, so that a result that is far off cannot make its own error look small.
    """
    squares = sum(float(np.square(array[np.isfinite(array)], dtype=np.float64).sum()) for array in expected)
    return max(least, math.sqrt(squares / sum(array.size for array in expected)))


def as_unit(image: Image) -> NDArray[np.float64]:
    """A picture (H, W, 3) as (1, 3, H, W) float64 in 0 to 1."""
    return (image.astype(np.float64) / np.iinfo(image.dtype).max).transpose(2, 0, 1)[np.newaxis]
