from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pocketprior.export.quantization.search import (
    _GAP,
    Choice,
    decibels,
    least_error,
    mean_square,
    predicted,
    solve,
)

LAYERS, PHOTOS = 6, 3


def cost_of(given: dict[str, dict[str, Choice]], plan: dict[str, str]) -> float:
    return math.fsum(given[layer][precision].cost for layer, precision in plan.items())


def choices(seed: int) -> dict[str, dict[str, Choice]]:
    rng = np.random.default_rng(seed)
    return {
        f"layer{i}": {
            level: Choice(cost * rng.uniform(100, 1000), list(error * rng.uniform(0.1, 1, PHOTOS)))
            for level, cost, error in (("fp16", 2, 0), ("w8", 1, 1e-5), ("w4", 0.5, 1e-3))
        }
        for i in range(LAYERS)
    }


def cheapest(given: dict[str, dict[str, Choice]], limit: float) -> float:
    """By trying everything."""
    plans = (dict(zip(given, levels, strict=True)) for levels in itertools.product(*given.values()))
    return min((cost_of(given, plan) for plan in plans if max(predicted(given, plan)) <= limit), default=math.inf)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [1e-6, 1e-4, 1e-3, 1.0])
def test_no_plan_is_cheaper(seed: int, limit: float) -> None:
    given = choices(seed)
    plan = solve(given, limit)
    assert plan is not None
    assert max(predicted(given, plan)) <= limit * (1 + 1e-6)
    assert cost_of(given, plan) <= cheapest(given, limit) * (1 + _GAP)


def test_where_there_is_no_plan() -> None:
    given = {name: {"w4": levels["w4"]} for name, levels in choices(0).items()}
    assert solve(given, 1e-9) is None


def test_the_least_error_at_which_there_is_a_plan() -> None:
    given = {name: {level: levels[level] for level in ("w8", "w4")} for name, levels in choices(1).items()}
    limit = least_error(given)
    assert max(predicted(given, dict.fromkeys(given, "w8"))) == pytest.approx(limit, rel=1e-3)
    assert solve(given, limit * 1.0001) is not None
    assert solve(given, limit * 0.99) is None


def test_decibels() -> None:
    assert decibels(mean_square(42)) == pytest.approx(42)
    assert decibels(0) == math.inf
