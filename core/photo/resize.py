"""Small images of a photo, by exact area means.

Each pixel of the result is the mean of the photo over that pixel's share of its area (a smaller photo is repeated), so
the result does not depend on tiles and is the same in every language to float rounding. Rows are added up as integers,
one row of the result at a time: the memory is a few rows of the photo, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, floor, sqrt

import numpy as np

from ..arrays import Batch, Field, Image

__all__ = ["shrink", "side_by_side", "thumbnail"]

_HALF_PIXELS = 12_000_000  # at most, of one half: larger photos are shown smaller
_GAP = 8  # pixels of white between the two


def thumbnail(image: Image, side: int) -> Batch:
    """What global conditions are computed from: Image (H, W, 3) -> (1, 3, side, side) in [0, 1], aspect ignored."""
    mean = np.stack(list(_area_means(image, side, side))) / np.iinfo(image.dtype).max  # (side, side, 3)
    return np.ascontiguousarray(mean.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)


def side_by_side(before: Image, after: Image) -> Image:
    """Two images (H, W, 3) of one size and depth -> (h, 2 w + _GAP, 3): `before` left, `after` right.

    A photo of more than _HALF_PIXELS is reduced by area means, aspect kept.
    """
    height, width = before.shape[:2]
    scale = min(1.0, sqrt(_HALF_PIXELS / (height * width)))
    rows, cols = max(1, int(height * scale)), max(1, int(width * scale))
    image = np.empty_like(before, shape=(rows, 2 * cols + _GAP, 3))
    shrink(before, image[:, :cols])
    image[:, cols:-cols] = np.iinfo(before.dtype).max
    shrink(after, image[:, -cols:])
    return image


def shrink(image: Image, out: Image) -> None:
    """Fill `out` (height, width, 3) with an image (H, W, 3) of the same dtype, rounded half up."""
    for y, row in enumerate(_area_means(image, *out.shape[:2])):
        out[y] = np.floor(row + 0.5)


def _area_means(image: Image, height: int, width: int) -> Iterator[Field]:
    """The `height` rows of the result, each (width, 3), in grey levels of the image."""
    edges = [y * len(image) / height for y in range(height + 1)]
    for first, last in pairwise(edges):
        yield _mean_columns(_sum_rows(image, first, last), width) / (len(image) / height)


def _sum_rows(image: Image, first: float, last: float) -> Field:
    """The integral over the rows [first, last): (W, 3)."""
    top, bottom = floor(first), ceil(last)
    total = image[top:bottom].sum(axis=0, dtype=np.uint64).astype(np.float64)
    return total - (first - top) * image[top] - (bottom - last) * image[bottom - 1]


def _mean_columns(row: Field, width: int) -> Field:
    """(W, 3) -> (width, 3): differences of the running integral at the edges of the cells."""
    size = len(row)
    edges = np.arange(width + 1) * size / width
    whole = np.minimum(edges.astype(np.intp), size - 1)
    before = np.cumsum(row, axis=0) - row
    integral = before[whole] + (edges - whole)[:, np.newaxis] * row[whole]
    return np.diff(integral, axis=0) / (size / width)
