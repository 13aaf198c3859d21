"""The steps of a sampler: the noise levels it passes and the timestep conditioning at each of them.

A few-step student has steps of its own: its checkpoint holds them, and whatever runs it uses them unless the caller
chooses others. A photo that is noisy already may enter a chain in the middle: its own noise is counted as part of the
first level. The functions take plain floats and arrays, NumPy's or torch's, as those in `samplers.py` do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, UsageError
from .samplers import AnyArray

__all__ = ["GAIN", "EnteredChain", "Steps", "enter", "own_steps", "sampled_deviation", "thinned", "unclipped"]

GAIN = 0.5  # of the sampled texture at strength 1, of a DTPM


class Steps(NamedTuple):
    """The steps of a chain, noisiest first."""

    levels: tuple[float, ...]  # alpha_bar per step, then 1.0, rising
    times: tuple[float, ...]  # timestep conditioning of each step, in [0, 1]

    @classmethod
    def of(cls, levels: Sequence[float], times: Sequence[float]) -> Steps:
        """From the two lists that `schedule.trailing` and `schedule.strided` return."""
        return cls(tuple(levels), tuple(times))

    @property
    def step_count(self) -> int:
        """The number of steps."""
        return len(self.times)


def thinned(steps: Steps, count: int) -> Steps:
    """`count` of the steps, spread evenly from the first: those that a student of them samples with.

    4 of 50: the steps 0, 12, 25 and 38. Raises UsageError unless 1 <= count <= steps.step_count.
    """
    there = steps.step_count
    if not 1 <= count <= there:
        raise UsageError(f"{count} steps were asked for, of a chain of {there}; choose 1 .. {there}")
    kept = [round(i * there / count) for i in range(count)]
    return Steps((*(steps.levels[i] for i in kept), 1.0), tuple(steps.times[i] for i in kept))


def sampled_deviation(facts: Mapping[str, Any], count: int) -> float:
    """Standard deviation of the scaled residuals that a calibrated DTPM samples in `count` steps; 1 would be right.

    Fewer steps sample less: divided by this, a gain means the same for any number of steps. Training measures it for
    some numbers of steps (`facts["deviations"]`); between them it is interpolated in the logarithm of the number.
    Returns 1 for a checkpoint without these measurements.
    """
    measured = {int(steps): float(value) for steps, value in facts.get("deviations", {}).items()}
    if not measured:
        return 1.0
    steps = sorted(measured)
    return float(np.interp(math.log(count), [math.log(s) for s in steps], [measured[s] for s in steps]))


def own_steps(facts: Mapping[str, Any]) -> Steps | None:
    """The steps in a checkpoint's facts; None where there are none.

    Raises CheckpointError for steps that no sampler could take.
    """
    if "levels" not in facts and "times" not in facts:
        return None
    try:
        steps = Steps.of([float(x) for x in facts["levels"]], [float(x) for x in facts["times"]])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            "the checkpoint's levels and times are not two lists of numbers; train it again"
        ) from None
    rising = all(0 <= a < b for a, b in pairwise(steps.levels))
    if len(steps.levels) != steps.step_count + 1 or not steps.times or not rising or steps.levels[-1] != 1.0:
        raise CheckpointError(
            f"the checkpoint has {steps.step_count} times and the levels {list(steps.levels)}; expected one level more "
            "than times, rising to 1; train it again"
        )
    return steps


class EnteredChain(NamedTuple):
    """A chain to sample from a noisy photo: it starts in the state sqrt(levels[0]) photo + added noise."""

    levels: tuple[float, ...]  # alpha_bar per step, then 1.0
    times: tuple[float, ...]  # one per step; none for a photo without noise
    added: float  # standard deviation of the noise that is added at the start
    exact: bool  # whether levels[0] is the level of the photo's own noise, so that none is added

    def first(self) -> EnteredChain:
        """Only the first step: it ends in the clean image that this step predicts."""
        return self._replace(levels=(self.levels[0], 1.0), times=self.times[:1])

    @property
    def topped_up(self) -> float:
        """Added noise as a share of all noise at the start, in standard deviations; 1 if none is the photo's own."""
        return self.added / math.sqrt(1 - self.levels[0]) if self.times else 0.0


def enter(levels: Sequence[float], times: Sequence[float], start_level: float | None, sigma: float) -> EnteredChain:
    """Enter a chain at `start_level`, or at the level of the photo's own noise if that is noisier.

    Between two levels of the chain the time is linear in sqrt(-log alpha_bar), which in the linear-beta schedule of
    DDPM is nearly proportional to it. If the photo is noisier than levels[0], the excess is not counted.

    levels: alpha_bar per step, then 1.0; times: one per step; start_level: alpha_bar in [levels[0], 1], 1.0 is clean,
    so that only the photo's own noise counts, None: levels[0], ignoring the photo's own noise; sigma: standard
    deviation of the photo's own noise in [-1, 1] units (2 / 255 per grey level), 0 or more.
    """
    if start_level is None:
        return EnteredChain(tuple(levels), tuple(times), math.sqrt(1 - levels[0]), exact=False)
    own = 1 / (1 + sigma * sigma)  # sqrt(own) photo has noise of variance 1 - own, as the state at this level has
    level = max(levels[0], min(start_level, own))
    added = math.sqrt(max(0.0, 1 - level - level * sigma * sigma)) if level < own else 0.0
    return EnteredChain(*_from(levels, times, level), added, exact=level == own)


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


def unclipped(photo: AnyArray, clean: AnyArray, sigma: float) -> AnyArray:
    """The photo with the values that were clipped to -1 or 1 replaced by their expected values before clipping.

    Clipped noise is no longer normal and has a mean: shadows come out too bright, highlights too dark (Foi, "Clipped
    noisy images", Signal Processing 2009). A value that noise took beyond a bound at distance d from the clean value is
    expected at sigma phi(d / sigma) / Phi(-d / sigma) from the clean value; by Boyd's bound on the ratio (1959), within
    4 %, that is (sqrt(d^2 + 2 pi sigma^2) - d) / pi beyond the bound.

    photo: a state in [-1, 1]; clean: an estimate of it without its noise, same shape; sigma: standard deviation of the
    normal noise, in [-1, 1] units.
    """

    def beyond(distance: AnyArray) -> AnyArray:
        return ((distance * distance + 2 * math.pi * sigma * sigma) ** 0.5 - distance) / math.pi

    low, high = photo <= -1, photo >= 1
    return photo - low * beyond((clean + 1).clip(0, 2)) + high * beyond((1 - clean).clip(0, 2))
