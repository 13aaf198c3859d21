"""The steps of a sampler: which levels it passes, and what the network is told of the time at each.

A few-step student knows its own: its checkpoint carries them, and everything that runs it uses them unless told
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, UsageError

__all__ = ["GAIN", "Steps", "own_steps", "sampled_deviation", "thinned"]


GAIN = 0.5  # of the sampled texture at strength 1, of a DTPM


class Steps(NamedTuple):
    """levels: abar per step, then 1.0, rising; times: one per step, in [0, 1]."""

    levels: tuple[float, ...]
    times: tuple[float, ...]

    @classmethod
    def of(cls, levels: Sequence[float], times: Sequence[float]) -> Steps:
        """From what `schedule.trailing` and `schedule.strided` give."""
        return cls(tuple(levels), tuple(times))

    @property
    def count(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The number of steps."""
        return len(self.times)


def thinned(steps: Steps, count: int) -> Steps:
    """`count` of the steps, spread evenly from the first: what a student of them samples with.

    4 of 50: the steps 0, 12, 25 and 38. Raises UsageError unless 1 <= count <= steps.count.
    """
    if not 1 <= count <= steps.count:
        raise UsageError(f"{count} steps were asked for, of a chain of {steps.count}; choose 1 .. {steps.count}")
    kept = [round(i * steps.count / count) for i in range(count)]
    return Steps((*(steps.levels[i] for i in kept), 1.0), tuple(steps.times[i] for i in kept))


def sampled_deviation(facts: Mapping[str, Any], count: int) -> float:
    """Standard deviation of the scaled residuals that a calibrated DTPM samples in `count` steps; 1 would be right.

    Fewer steps give less: so that one gain means the same for any number of steps, it is divided by this. Measured in
    training for some numbers of steps, interpolated between them; 1 for a checkpoint that does not carry it.
    """
    measured = {int(steps): float(value) for steps, value in facts.get("deviations", {}).items()}
    if not measured:
        return 1.0
    steps = sorted(measured)
    return float(np.interp(math.log(count), [math.log(s) for s in steps], [measured[s] for s in steps]))


def own_steps(facts: Mapping[str, Any]) -> Steps | None:
    """The steps that a checkpoint's facts name, None where they name none.

    Raises CheckpointError for steps that no sampler could take.
    """
    if "levels" not in facts and "times" not in facts:
        return None
    try:
        steps = Steps.of([float(x) for x in facts["levels"]], [float(x) for x in facts["times"]])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError("the checkpoint's levels and times are no lists of numbers; train it again") from None
    rising = all(0 <= a < b for a, b in pairwise(steps.levels))
    if len(steps.levels) != steps.count + 1 or not steps.count or not rising or steps.levels[-1] != 1.0:
        raise CheckpointError(
            f"the checkpoint's levels {list(steps.levels)} are not those of {steps.count} steps, rising to 1; "
            "train it again"
        )
    return steps
