"""Differences between two methods on the same photos, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..limits import FEWEST_PHOTOS

__all__ = ["PairedDifference", "paired"]

_DRAWS = 10_000
_TAILS = (0.025, 0.975)


class PairedDifference(NamedTuple):
    """The mean of paired differences and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float
    photos: int

    @property
    def shown(self) -> bool:
        """Whether the photos show a difference: the interval excludes 0, and there are enough of them."""
        return self.photos >= FEWEST_PHOTOS and not self.low <= 0 <= self.high


def paired(ours: Sequence[float], theirs: Sequence[float]) -> PairedDifference:
    """Ours minus theirs, photo by photo; a percentile bootstrap of the mean (Efron 1979) with a fixed seed.

    Raises ValueError for lists of different lengths and for empty ones.
    """
    differences = np.array([a - b for a, b in zip(ours, theirs, strict=True)], dtype=np.float64)
    count = len(differences)
    if count == 0:
        raise ValueError("no photo was measured with both methods; give at least one")
    draws = np.random.default_rng(0).integers(count, size=(_DRAWS, count))
    means: NDArray[np.float64] = differences[draws].mean(axis=1)
    low, high = (float(np.quantile(means, tail)) for tail in _TAILS)
    return PairedDifference(float(differences.mean()), low, high, count)
