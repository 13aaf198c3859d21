"""Random things spread over a picture: slow variations, and scattered particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .filters import convolve_inside
from .light import Plane
from .resizing import resize
from .windows import Part

__all__ = ["SmoothField", "scattered"]


@dataclass(frozen=True)
class SmoothField:
    """Values in [0, 1] that vary slowly: bicubic between the numbers of a grid that spans the picture."""

    grid: NDArray[np.float32]  # (rows, columns, 1)

    @classmethod
    def draw(cls, height: int, width: int, cell: float, rng: Generator) -> SmoothField:
        """Random numbers about `cell` pixels apart in a picture of this size."""
        rows, columns = (max(2, round(size / cell) + 1) for size in (height, width))
        return cls(rng.random((rows, columns, 1), dtype=np.float32))

    def at(self, part: Part) -> Plane:
        """The values in a part of the picture, which may have any size."""
        height, width, rows, columns = part
        field = resize(self.grid, height, width, "bicubic", antialias=False, rows=rows, columns=columns)
        return np.clip(field[..., 0], 0, 1)


def scattered(height: int, width: int, shape: Plane, coverage: float, rng: Generator) -> Plane:
    """(height, width) in [0, 1]: copies of `shape` (odd-sized, largest value 1) at random places, half to full strong.

    coverage: the share of the picture that they would cover if they did not overlap.
    """
    seeds = rng.random((height + shape.shape[0] - 1, width + shape.shape[1] - 1), dtype=np.float32)
    density = np.float32(min(coverage / float(shape.sum()), 0.5))
    strength = np.where(seeds < density, 1 - seeds / (2 * density), 0).astype(np.float32)
    return np.clip(convolve_inside(strength, shape), 0, 1)
