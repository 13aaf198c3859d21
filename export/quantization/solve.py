"""The cheapest choice of precisions under bounds on the error of every photo: a multiple-choice knapsack.

    minimise    sum_l cost(l, p_l)
    such that   sum_l error_i(l, p_l) <= limit      for every photo i

with one precision p_l per layer. Errors are mean squared differences on the image, measured one layer at a time; that
they add up is the model (rounding errors are nearly uncorrelated), and its result is measured afterwards. It is solved
as an integer program by branch and bound: the cost found is within a relative gap of 1e-3 of the least there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Choice", "Choices", "cost_of", "decibels", "least_error", "mean_square", "predicted", "solve"]

_GAP = 1e-3  # relative, to the least cost
_BISECTIONS = 24


class Choice(NamedTuple):
    """A layer at a precision: its cost, and its error on every photo."""

    cost: float
    errors: Sequence[float]


Choices = Mapping[str, Mapping[str, Choice]]  # layer -> precision -> its cost and errors


def mean_square(decibels: float) -> float:
    """The mean squared difference, on the scale 0 to 1, of a PSNR."""
    return 10 ** (-decibels / 10)


def decibels(mean_square: float) -> float:
    """PSNR of a mean squared difference; inf for 0."""
    return math.inf if mean_square <= 0 else -10 * math.log10(mean_square)


def predicted(choices: Choices, precisions: Mapping[str, str]) -> list[float]:
    """The error of every photo that the model expects of a plan."""
    chosen = [choices[layer][precision].errors for layer, precision in precisions.items()]
    return [math.fsum(errors) for errors in zip(*chosen, strict=True)]


def solve(choices: Choices, limit: float) -> dict[str, str] | None:
    """The precision of each layer; None if no plan keeps every photo within `limit`."""
    # HiGHS comes with scipy, which takes a second to load.
    from scipy.optimize import Bounds, LinearConstraint, milp

    # A choice that breaks the limit by itself is in no plan; without these the numbers of the program stay small.
    pairs = [
        (layer, precision) for layer in choices for precision, c in choices[layer].items() if max(c.errors) <= limit
    ]
    if {layer for layer, _ in pairs} != set(choices):
        return None
    costs = np.array([choices[layer][precision].cost for layer, precision in pairs])
    one_each = np.array([[float(layer == of) for of, _ in pairs] for layer in choices])
    errors = np.array([choices[layer][precision].errors for layer, precision in pairs]).T / limit
    found = milp(
        costs / max(costs.max(), 1.0),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(errors, -np.inf, 1)],
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": _GAP},
    )
    if found.x is None:
        return None
    return {layer: precision for (layer, precision), taken in zip(pairs, found.x, strict=True) if taken > 0.5}


def least_error(choices: Choices, most: float) -> float:
    """The smallest limit on the error at which a plan costs at most `most`; inf if the cheapest plan costs more."""
    cheapest = {
        layer: min(precisions, key=lambda precision: precisions[precision].cost)
        for layer, precisions in choices.items()
    }
    if cost_of(choices, cheapest) > most:
        return math.inf
    low, high = -150.0, math.log10(max(*predicted(choices, cheapest), 1e-15)) * 10  # decibels below 1
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        precisions = solve(choices, mean_square(-middle))
        fits = precisions is not None and cost_of(choices, precisions) <= most
        low, high = (low, middle) if fits else (middle, high)
    return mean_square(-high)


def cost_of(choices: Choices, precisions: Mapping[str, str]) -> float:
    """The cost of a plan."""
    return math.fsum(choices[layer][precision].cost for layer, precision in precisions.items())
