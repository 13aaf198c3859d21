"""Sample values: bands of rows, and the way between 8, 10, 12 and 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image

__all__ = ["bands", "levels", "rescaled"]

_BAND_PIXELS = 1 << 20


def bands(height: int, width: int) -> Iterator[slice]:
    """Row slices that cover `height` rows, about a megapixel each: what is in work stays small."""
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


@cache
def _table(source: int, target: int) -> Image:
    """target * i / source for i = 0 .. source, rounded half up."""
    index = np.arange(source + 1, dtype=np.int64)
    scaled = (2 * index * target + source) // (2 * source)
    return scaled.astype(np.uint8) if target < 256 else scaled.astype(np.uint16)


def rescaled(samples: NDArray[Any], source: int, target: int) -> Image:
    """Map 0 .. source to 0 .. target (white stays white), rounded half up; uint8 if it fits, else uint16."""
    return _table(source, target)[np.minimum(samples, source)]


def levels(samples: Image, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    """The same picture in `dtype`: 8 -> 16 bit is exact, 16 -> 8 bit rounds half up."""
    if samples.dtype == dtype:
        return samples
    return rescaled(samples, np.iinfo(samples.dtype).max, np.iinfo(dtype).max)
