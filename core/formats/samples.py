"""Samples of a photo, a band of rows at a time: depth, grey and alpha are settled without a second full copy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image
from ..photo import Photo

__all__ = ["bands", "interleaved", "levels", "rescaled"]

_BAND_PIXELS = 1 << 20


def bands(height: int, width: int) -> Iterator[slice]:
    """Row slices that cover `height` rows, about a megapixel each."""
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


@cache
def _table(source: int, target: int) -> Image:
    """target * i / source for i = 0 .. source, rounded half up."""
    index = np.arange(source + 1, dtype=np.int64)
    scaled = (2 * index * target + source) // (2 * source)
    return scaled.astype(np.uint8 if target < 256 else np.uint16)


def rescaled(samples: NDArray[np.unsignedinteger], source: int, target: int) -> Image:
    """Map 0 .. source to 0 .. target (white stays white), rounded half up; uint8 if it fits, else uint16."""
    return _table(source, target)[np.minimum(samples, source)]


def levels(samples: Image, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    """The same picture in `dtype`: 8 -> 16 bit is exact, 16 -> 8 bit rounds half up."""
    if samples.dtype == dtype:
        return samples
    return rescaled(samples, np.iinfo(samples.dtype).max, np.iinfo(dtype).max)


def _mean_of_channels(pixels: Image) -> Image:
    total = pixels.sum(axis=2, keepdims=True, dtype=np.uint32)
    return ((2 * total + 3) // 6).astype(pixels.dtype)


def interleaved(photo: Photo, rows: slice, *, dtype: type[np.uint8] | type[np.uint16], grey: bool) -> Image:
    """Rows of a photo as a file stores them: (n, W, C) with C = 1 or 3 colours, then alpha if there is one."""
    pixels = photo.pixels[rows]
    colours = levels(_mean_of_channels(pixels) if grey else pixels, dtype)  # (n, W, 1 | 3)
    if photo.alpha is None:
        return colours
    return np.concatenate([colours, levels(photo.alpha[rows], dtype)[..., np.newaxis]], axis=2)
