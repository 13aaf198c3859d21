"""Random things spread over a picture: slow variations, and scattered particles."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .filters import convolve_inside
from .light import Plane
from .resizing import resize

__all__ = ["scattered", "smooth_field"]


def smooth_field(height: int, width: int, cell: float, rng: Generator) -> Plane:
    """(height, width) in [0, 1] that varies over about `cell` pixels: bicubic between random numbers on a grid."""
    rows, columns = (max(2, round(size / cell) + 1) for size in (height, width))
    grid = rng.random((rows, columns, 1), dtype=np.float32)
    return np.clip(resize(grid, height, width, "bicubic", antialias=False)[..., 0], 0, 1)


def scattered(height: int, width: int, shape: Plane, coverage: float, rng: Generator) -> Plane:
    """(height, width) in [0, 1]: copies of `shape` (odd-sized, largest value 1) at random places, half to full strong.

    coverage: the share of the picture that they would cover if they did not overlap.
    """
    seeds = rng.random((height + shape.shape[0] - 1, width + shape.shape[1] - 1), dtype=np.float32)
    density = np.float32(min(coverage / float(shape.sum()), 0.5))
    strength = np.where(seeds < density, 1 - seeds / (2 * density), 0).astype(np.float32)
    return np.clip(convolve_inside(strength, shape), 0, 1)
