"""The cheapest choice of levels under bounds on the error of every photo: a multiple-choice knapsack.

    minimise    sum_l cost(l, p_l)
    such that   sum_l error_i(l, p_l) <= limit      for every photo i

with one level p_l per layer. Errors are mean squared differences on the image, measured one layer at a time; that they
add up is the model (errors of rounding are nearly uncorrelated), and what comes out of it is measured afterwards. It is
solved as an integer program by branch and bound: the cost found is within GAP of the least there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Choice", "Choices", "cost_of", "decibels", "least_error", "mean_square", "predicted", "solve"]

GAP = 1e-3  # relative; what the solver may leave on the table
BISECTIONS = 24


class Choice(NamedTuple):
    """A layer at a level: its cost, and its error on every photo."""

    cost: float
    errors: Sequence[float]


Choices = Mapping[str, Mapping[str, Choice]]  # layer -> level -> what it costs


def mean_square(decibels: float) -> float:
    """The mean squared difference, of 1, that a PSNR stands for."""
    return 10 ** (-decibels / 10)


def decibels(mean_square: float) -> float:
    """PSNR of a mean squared difference; inf for 0."""
    return math.inf if mean_square <= 0 else -10 * math.log10(mean_square)


def predicted(choices: Choices, levels: Mapping[str, str]) -> list[float]:
    """The error of every photo that the model expects of a plan."""
    chosen = [choices[layer][level].errors for layer, level in levels.items()]
    return [math.fsum(errors) for errors in zip(*chosen, strict=True)]


def solve(choices: Choices, limit: float) -> dict[str, str] | None:
    """The level of each layer, None where no plan keeps every photo within `limit`."""
    # HiGHS comes with scipy, which takes a second to load.
    from scipy.optimize import Bounds, LinearConstraint, milp

    # What breaks the limit alone is in no plan; without it the numbers of the program stay small.
    pairs = [(layer, level) for layer in choices for level, c in choices[layer].items() if max(c.errors) <= limit]
    if {layer for layer, _ in pairs} != set(choices):
        return None
    costs = np.array([choices[layer][level].cost for layer, level in pairs])
    one_each = np.array([[float(layer == of) for of, _ in pairs] for layer in choices])
    errors = np.array([choices[layer][level].errors for layer, level in pairs]).T / limit
    found = milp(
        costs / max(costs.max(), 1.0),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(errors, -np.inf, 1)],
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": GAP},
    )
    if found.x is None:
        return None
    return {layer: level for (layer, level), taken in zip(pairs, found.x, strict=True) if taken > 0.5}


def least_error(choices: Choices, most: float) -> float:
    """The smallest limit on the error at which a plan costs no more than `most`; inf where the cheapest costs more."""
    cheapest = {layer: min(levels, key=lambda level: levels[level].cost) for layer, levels in choices.items()}
    if cost_of(choices, cheapest) > most:
        return math.inf
    low, high = -150.0, math.log10(max(*predicted(choices, cheapest), 1e-15)) * 10  # decibels below 1
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        levels = solve(choices, mean_square(-middle))
        fits = levels is not None and cost_of(choices, levels) <= most
        low, high = (low, middle) if fits else (middle, high)
    return mean_square(-high)


def cost_of(choices: Choices, levels: Mapping[str, str]) -> float:
    """What a plan costs."""
    return math.fsum(choices[layer][level].cost for layer, level in levels.items())
