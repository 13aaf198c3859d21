"""How a photo that is noisy already enters a chain of noise levels: its own noise is counted as part of the first.

The functions take plain floats and arrays, NumPy's or torch's, like those in `samplers.py`. Noise is that of the state,
which is in [-1, 1]: sigma is the standard deviation of the photo's own noise there, 2 / 255 per grey level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Entry", "enter", "unclipped"]

Array: TypeAlias = Any  # a NumPy array or a torch tensor


class Entry(NamedTuple):
    """A chain to sample, and what its start is made of.

    The state at its start is sqrt(levels[0]) photo + added noise. levels: alpha_bar per step, then 1.0; times: one per
    step; both without steps for a photo without noise. exact: whether levels[0] is the level of the photo's own noise,
    so that none is added.
    """

    levels: tuple[float, ...]
    times: tuple[float, ...]
    added: float
    exact: bool

    def first(self) -> Entry:
        """The first step alone: the clean image that it foresees."""
        return self._replace(levels=(self.levels[0], 1.0), times=self.times[:1])

    @property
    def topped_up(self) -> float:
        """Share of the noise at the start that is added, as a standard deviation: 1 where none is the photo's own."""
        return self.added / math.sqrt(1 - self.levels[0]) if self.times else 0.0


def enter(levels: Sequence[float], times: Sequence[float], start_level: float | None, sigma: float) -> Entry:
    """Enter the chain `levels`, `times` at `start_level`, or at the level of the photo's own noise if that is noisier.

    sigma: of the photo's own noise, 0 or more. start_level: alpha_bar of levels[0] .. 1.0, of which 1.0 is clean, so
    that it leaves the photo's own noise; None for levels[0] whatever the photo's own noise. Of a noisier photo than
    levels[0] not all noise is counted. Between two levels of the chain the time follows sqrt(-log alpha_bar) in a line,
    of which it is nearly a multiple in the linear-beta schedule of DDPM.
    """
    if start_level is None:
        return Entry(tuple(levels), tuple(times), math.sqrt(1 - levels[0]), exact=False)
    own = 1 / (1 + sigma * sigma)  # sqrt(own) photo has noise of variance 1 - own, as the state at this level has
    level = max(levels[0], min(start_level, own))
    added = math.sqrt(max(0.0, 1 - level - level * sigma * sigma)) if level < own else 0.0
    return Entry(*_from(levels, times, level), added, exact=level == own)


def _from(levels: Sequence[float], times: Sequence[float], level: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The chain from `level` on, which may lie between two of its levels."""
    if level == 1:
        return (1.0,), ()
    after = next(i for i, further in enumerate(levels) if further > level)
    first, here, following = (math.sqrt(-math.log(bound)) for bound in (levels[after - 1], level, levels[after]))
    share = (first - here) / (first - following)
    ends = (*times, 0.0)
    time = ends[after - 1] + share * (ends[after] - ends[after - 1])
    return (level, *levels[after:]), (time, *times[after:])


def unclipped(photo: Array, clean: Array, sigma: float) -> Array:
    """The photo, with values that were clipped to -1 or 1 replaced by what they are expected to have been before that.

    photo, clean: states of one shape in [-1, 1]; `clean` is an estimate of the photo without its noise, which is normal
    with the standard deviation `sigma`. Noise that is clipped is no longer normal and has a mean: shadows come out too
    bright, highlights too dark (Foi, "Clipped noisy images", Signal Processing 2009). A value that noise took beyond a
    bound at the distance d from the clean one is expected at sigma phi(d / sigma) / Phi(-d / sigma) from the clean one;
    Boyd's bound on the ratio (1959) gives (sqrt(d^2 + 2 pi sigma^2) - d) / pi
    beyond the bound, which is within 4 %.
    """

    def beyond(distance: Array) -> Array:
        return ((distance * distance + 2 * math.pi * sigma * sigma) ** 0.5 - distance) / math.pi

    low, high = photo <= -1, photo >= 1
    return photo - low * beyond((clean + 1).clip(0, 2)) + high * beyond((1 - clean).clip(0, 2))
