"""Arrays in unsigned 8 bits: what a code stands for, and how far codes reach. Exporters and training share it."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "LEAST", "Unit", "reach", "unit"]

LEAST = 256  # weights; a layer with fewer stays in float: there is nothing to gain
BINS = 2048  # of a histogram: 8 for each of 256 codes
SHARES = np.linspace(0.5, 1.0, 11)  # of the least and of the largest value, that codes may reach to


class Unit(NamedTuple):
    """What a code stands for: (code - zero) * scale, for codes from 0 to 255."""

    scale: float
    zero: int


def unit(least: float, largest: float) -> Unit:
    """The unit of codes from `least` to `largest`, which have zero between them; the scale is a float32."""
    scale = float(np.float32(max((largest - least) / 255, 1e-12)))
    return Unit(scale, int(np.clip(round(-least / scale), 0, 255)))


def reach(least: float, largest: float, counts: NDArray[np.int64]) -> tuple[float, float]:
    """From where to where codes are nearest to values with this histogram of BINS bins between two extremes.

    Of SHARES of both those that leave the least squared error, of equal ones the widest. A percentile would cut off the
    white of a photo; this weighs what is cut off.
    """
    if least == largest:
        return least, largest
    centres = least + (np.arange(BINS) + 0.5) * (largest - least) / BINS

    def error(ends: tuple[float, float]) -> float:
        scale, zero = unit(*ends)
        codes = np.clip(np.round(centres / scale) + zero, 0, 255)
        return float(counts @ np.square((codes - zero) * scale - centres))

    shares = product(SHARES.tolist() if least else [1.0], SHARES.tolist())
    return min(reversed([(least * low, largest * high) for low, high in shares]), key=error)
