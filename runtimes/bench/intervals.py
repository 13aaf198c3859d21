"""Paired differences with 95 % confidence: two methods on the same photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["LEAST", "Difference", "paired"]

DRAWS = 10_000
CONFIDENCE = 0.95
LEAST = 6  # photos; with fewer the percentiles of a bootstrap are far too narrow to decide anything


class Difference(NamedTuple):
    """The mean of the differences and the ends of its 95 % interval; from how many photos."""

    mean: float
    low: float
    high: float
    photos: int

    @property
    def shown(self) -> bool:
        """Whether the data show a difference at all: the interval excludes zero, from enough photos."""
        return self.photos >= LEAST and (self.low > 0 or self.high < 0)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Ours minus theirs, photo by photo; raises ValueError for none or for lists of different lengths.

    A percentile bootstrap of the mean (Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics
    1979) with a fixed seed, so that a repeated run gives the same interval.
    """
    differences = np.array([a - b for a, b in zip(ours, theirs, strict=True)], np.float64)
    if differences.size == 0:
        raise ValueError("no photo was measured with both methods; give at least one")
    chosen = np.random.default_rng(0).integers(0, differences.size, (DRAWS, differences.size))
    tails = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences[chosen].mean(axis=1), [tails, 1 - tails])
    return Difference(float(differences.mean()), float(low), float(high), differences.size)
