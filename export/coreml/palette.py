"""Weights as the numbers of a few values, found by k-means on the line.

Lloyd, "Least squares quantization in PCM" (1982), from a start that is already near: values as dense as the cube root
of the density of the weights (Panter and Dite, "Quantization distortion in pulse-count modulation", 1951).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["PALETTES", "Palette", "palette"]

PALETTES = {"palette4": 4, "palette6": 6, "palette8": 8}  # level -> bits of an index
ROUNDS = 100
BINS = 1024  # of the density


class Palette(NamedTuple):
    """indices: uint8, of the shape of the weights. table: (2^bits) float32, rising."""

    indices: NDArray[np.uint8]
    table: NDArray[np.float32]


def palette(weights: NDArray[np.float32], bits: int) -> Palette:
    """The weights by a table of 2^bits values; without any loss where they have no more than these.

    The same weights always give the same table.
    """
    ordered = np.sort(weights.reshape(-1).astype(np.float64))
    values = np.unique(ordered)
    if len(values) > 2**bits:
        values = _means(ordered, _start(ordered, 2**bits))
    table = np.full(2**bits, values[-1], np.float32)
    table[: len(values)] = values
    middles = (table[1:].astype(np.float64) + table[:-1]) / 2
    return Palette(np.searchsorted(middles, weights, side="left").astype(np.uint8), table)


def _start(ordered: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Rising values, as dense as the cube root of the density."""
    counts, edges = np.histogram(ordered, BINS)
    reached = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    return np.interp((np.arange(count) + 0.5) / count * reached[-1], reached, edges)


def _means(ordered: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lloyd's iteration on sorted values."""
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(ROUNDS):
        ends = np.searchsorted(ordered, (table[1:] + table[:-1]) / 2)
        ends = np.concatenate([[0], ends, [len(ordered)]])
        counts = np.diff(ends)
        # What nothing is nearest to stays where it is.
        moved = np.where(counts > 0, np.diff(sums[ends]) / np.maximum(counts, 1), table)
        if np.array_equal(moved, table):
            break
        table = moved
    return table
