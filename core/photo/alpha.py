"""The colours under the fully transparent parts of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image

__all__ = ["fill_hidden"]


_FAR = 1 << 30
_BLOCK = 256  # columns or rows in work at one time


def fill_hidden(pixels: Image, alpha: Image) -> None:
    """Give each fully transparent pixel, in place, the colour of the nearest visible one (city-block distance).

    Editors leave anything there, often black: the restoration would draw it into the visible edge. The filled
    colour stays invisible. An image without any visible pixel is left alone.

    pixels: (H, W, 3), changed; alpha: (H, W), 0 = transparent.
    """
    visible = alpha > 0
    if visible.all() or not visible.any():
        return
    height, width = alpha.shape
    source_rows = np.empty((height, width), np.int32)
    for start in range(0, width, _BLOCK):
        source_rows[:, start : start + _BLOCK] = _nearest_row(visible[:, start : start + _BLOCK])
    for start in range(0, height, _BLOCK):
        block = slice(start, min(start + _BLOCK, height))
        _fill_rows(pixels, visible, source_rows, block)


def _fill_rows(pixels: Image, visible: NDArray[np.bool_], source_rows: NDArray[np.int32], block: slice) -> None:
    if visible[block].all():
        return
    rows = np.arange(block.start, block.stop, dtype=np.int64)[:, np.newaxis]
    found = source_rows[block]
    distance = np.where(found < 0, _FAR, np.abs(found - rows)).astype(np.int64)
    column = _nearest_column(distance)
    row = np.take_along_axis(found, column, 1)
    hidden = ~visible[block]
    pixels[block][hidden] = pixels[row[hidden], column[hidden]]


def _nearest_row(visible: NDArray[np.bool_]) -> NDArray[np.int32]:
    """For each pixel (H, W) the row of the nearest visible pixel in its column; -1 in an empty column."""
    height = len(visible)
    rows = np.arange(height, dtype=np.int32)[:, np.newaxis]
    above = np.maximum.accumulate(np.where(visible, rows, -1), axis=0)
    below = np.minimum.accumulate(np.where(visible, rows, _FAR)[::-1], axis=0)[::-1]
    use_above = (above >= 0) & ((below == _FAR) | (rows - above <= below - rows))
    return np.where(use_above, above, np.where(below == _FAR, -1, below)).astype(np.int32)


def _nearest_column(distance: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each pixel (n, W) the column x' of its row with the least distance(x') + |x - x'|."""
    width = distance.shape[1]
    columns = np.arange(width, dtype=np.int64)
    # A running minimum over (distance, column) packed in one number finds both.
    from_left = np.minimum.accumulate((distance - columns + width) * width + columns, axis=1)
    mirrored = (distance[:, ::-1] - columns + width) * width + columns
    from_right = np.minimum.accumulate(mirrored, axis=1)[:, ::-1]
    left, right = from_left % width, width - 1 - from_right % width
    reach_left = np.take_along_axis(distance, left, 1) + columns - left
    reach_right = np.take_along_axis(distance, right, 1) + right - columns
    return np.where(reach_left <= reach_right, left, right)
