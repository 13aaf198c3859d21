"""Samplers: functions over plain floats and arrays.

The bodies use only + - * / and indexing, so the same text runs on NumPy in a runtime, on torch in training and under
tracing when the whole restoration becomes one graph. Nothing here draws noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

__all__ = ["clean_from_v", "ddim", "one_step", "posterior_mean"]

Array: TypeAlias = Any  # a NumPy array or a torch tensor: whatever has + - * / with floats


def clean_from_v(x: Array, v: Array, level: float) -> Array:
    """x0 from a v-prediction (Salimans and Ho 2022, Appendix D): x0 = sqrt(abar) x - sqrt(1 - abar) v."""
    return math.sqrt(level) * x - math.sqrt(1 - level) * v


def ddim(denoise: Callable[[Array, int], Array], x: Array, levels: Sequence[float]) -> Array:
    """Deterministic DDIM, eta 0 (Song et al. 2021, Eq. 12), written for v-prediction.

    denoise: (x, step index) -> v, same shape as x. levels: abar per step, ending in 1.0 (clean).
    The step from abar to abar' is x' = sqrt(abar') x0 + sqrt(1 - abar') eps with eps = sqrt(1 - abar) x + sqrt(abar) v:
    no division, so pure noise (abar = 0) is an ordinary first level.
    """
    for i, (level, following) in enumerate(pairwise(levels)):
        v = denoise(x, i)
        clean = clean_from_v(x, v, level)
        noise = math.sqrt(1 - level) * x + math.sqrt(level) * v
        x = math.sqrt(following) * clean + math.sqrt(1 - following) * noise
    return x


def one_step(denoise: Callable[[Array, int], Array], x: Array, levels: Sequence[float]) -> Array:
    """The clean estimate of the first level alone: `ddim` with a single step, for one-step students."""
    return clean_from_v(x, denoise(x, 0), levels[0])


def posterior_mean(denoise: Callable[[Array, int], Array], x: Array, levels: Sequence[float]) -> Array:
    """DiffIR's reverse chain: the mean of q(x_{t-1} | x_t, x0) (Ho et al. 2020, Eq. 7), without added noise.

    denoise: (x, step index) -> x0. levels: abar_T .. abar_1, then 1.0; step 0 is t = T.
    """
    for i, (level, following) in enumerate(pairwise(levels)):
        clean = denoise(x, i)
        alpha = level / following
        x = (
            math.sqrt(following) * (1 - alpha) / (1 - level) * clean
            + math.sqrt(alpha) * (1 - following) / (1 - level) * x
        )
    return x
