"""Stops a run whose loss is not finite or runs away, before it spoils the weights that are saved."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median

from ..errors import TrainingError

__all__ = ["Guard"]

RECENT = 25  # steps whose median is judged
BEFORE = 200  # steps before them that it is judged by
LIMIT = 12  # median absolute deviations that the loss may rise by


class Guard:
    """Looks at the figures of each step in turn."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=BEFORE + RECENT)

    def check(self, step: int, figures: Mapping[str, float]) -> None:
        """Raises TrainingError when a figure is not finite, or the loss has left the range of the steps before.

        The median of the last 25 losses may lie above that of the 200 before by 12 of their median absolute deviations:
        single bad batches pass, and so does any loss scale or sign.
        """
        for name, value in figures.items():
            if not math.isfinite(value):
                raise TrainingError(f"{name} is {value} at step {step}; {_ADVICE}")
        self._losses.append(figures["loss"])
        if len(self._losses) == BEFORE + RECENT and (step + 1) % RECENT == 0:
            self._check_rise(step)

    def _check_rise(self, step: int) -> None:
        losses = list(self._losses)
        before, recent = losses[:BEFORE], median(losses[BEFORE:])
        usual = median(before)
        deviation = median(abs(loss - usual) for loss in before)
        if recent > usual + LIMIT * max(deviation, 1e-6 * abs(usual)):
            raise TrainingError(f"the loss rose from about {usual:.4g} to {recent:.4g} by step {step}; {_ADVICE}")


_ADVICE = (
    "the last good state is saved: start again in a new --out folder with a lower rate (--set rate=...), a longer "
    "warm-up (--set warmup=...) or clipped gradients (--set clip=1)"
)
