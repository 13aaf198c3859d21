"""A photo before and after, side by side in one picture."""

from __future__ import annotations

from math import sqrt

import numpy as np

from .arrays import Image
from .thumbnail import shrink

__all__ = ["side_by_side"]

HALF_PIXELS = 12_000_000  # at most, of one half: larger photos are shown smaller
GAP = 8  # pixels of white between the two


def side_by_side(before: Image, after: Image) -> Image:
    """Two pictures (H, W, 3) of one size and depth -> (h, 2 w + GAP, 3): `before` left, `after` right.

    A photo of more than HALF_PIXELS is reduced by area means, aspect kept.
    """
    height, width = before.shape[:2]
    scale = min(1.0, sqrt(HALF_PIXELS / (height * width)))
    rows, cols = max(1, int(height * scale)), max(1, int(width * scale))
    picture = np.empty_like(before, shape=(rows, 2 * cols + GAP, 3))
    shrink(before, picture[:, :cols])
    picture[:, cols:-cols] = np.iinfo(before.dtype).max
    shrink(after, picture[:, -cols:])
    return picture
