from __future__ import annotations

import math

import numpy as np
import pytest

from pocketprior.core.errors import TrainingError
from pocketprior.core.training.loop.processes import Guard


def watch(losses: np.ndarray) -> int | None:
    """The step at which the guard stops a run with these losses."""
    guard = Guard()
    for step, loss in enumerate(losses):
        try:
            guard.check(step, {"loss": float(loss), "gradient": 1.0})
        except TrainingError:
            return step
    return None


NOISE = np.random.default_rng(0).normal(0, 0.05, 2000)


@pytest.mark.parametrize("curve", [-30 - 5 * np.linspace(0, 1, 2000), np.full(2000, 1.0), 1 / np.arange(1, 2001)])
def test_usual_curves_pass(curve: np.ndarray) -> None:
    """Of any sign: falling, flat, and with single bad batches."""
    losses = curve + NOISE
    losses[::90] += 100
    assert watch(losses) is None


@pytest.mark.parametrize("rise", [1.0, 1e6])
def test_loss_that_rises_and_stays_is_stopped_soon(rise: float) -> None:
    losses = 0.5 + NOISE
    losses[1000:] += rise
    step = watch(losses)
    assert step is not None
    assert 1000 < step < 1060


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "gradient"])
def test_figure_that_is_not_finite_is_named(name: str, value: float) -> None:
    with pytest.raises(TrainingError, match=f"{name} is {value} at step 3.*lower rate"):
        Guard().check(3, {"loss": 1.0, "gradient": 1.0, name: value})
