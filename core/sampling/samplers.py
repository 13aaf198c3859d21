"""Samplers: functions over plain floats and arrays.

The bodies use only + - * / ** clip and indexing, so the same text runs on NumPy in a runtime, on torch in training and
under tracing when the whole restoration becomes one graph. Nothing here draws noise.

A level is alpha_bar, the share of signal variance: x = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps. A list of levels
ends in 1.0 (clean) and has one number more than there are steps; its first may be 0.0 (pure noise), but not with a
predicted eps, which does not determine x0 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

__all__ = [
    "PREDICTIONS",
    "AnyArray",
    "ancestral",
    "clipped",
    "ddim",
    "from_clean",
    "from_noise",
    "from_v",
    "noised",
    "posterior_mean",
]

AnyArray: TypeAlias = Any  # a NumPy array or a torch tensor: whatever has + - * / ** with floats


def from_v(x: AnyArray, v: AnyArray, level: float) -> tuple[AnyArray, AnyArray]:
    """(x0, eps) from a v-prediction, without a division (Salimans and Ho 2022, Appendix D).

    x0 = sqrt(alpha_bar) x - sqrt(1 - alpha_bar) v, eps = sqrt(1 - alpha_bar) x + sqrt(alpha_bar) v.
    """
    signal, deviation = math.sqrt(level), math.sqrt(1 - level)
    return signal * x - deviation * v, deviation * x + signal * v


def from_clean(x: AnyArray, clean: AnyArray, level: float) -> tuple[AnyArray, AnyArray]:
    """(x0, eps) from a predicted x0, for a level below 1."""
    return clean, (x - math.sqrt(level) * clean) / math.sqrt(1 - level)


def from_noise(x: AnyArray, noise: AnyArray, level: float) -> tuple[AnyArray, AnyArray]:
    """(x0, eps) from a predicted eps, for a level above 0."""
    return (x - math.sqrt(1 - level) * noise) / math.sqrt(level), noise


PREDICTIONS: dict[str, Callable[[AnyArray, AnyArray, float], tuple[AnyArray, AnyArray]]] = {
    "eps": from_noise,
    "v": from_v,
    "x0": from_clean,
}
_SHARES = {"small": -1.0, "large": 1.0}  # of the variance's range, -1 .. 1


def clipped(x: AnyArray) -> AnyArray:
    """Limit x to [-1, 1], the range of an image's state; `ddim` and `ancestral` take it as `clip`."""
    return x.clip(-1, 1)


def noised(clean: AnyArray, noise: AnyArray, level: float) -> AnyArray:
    """The state at a level: sqrt(alpha_bar) clean + sqrt(1 - alpha_bar) noise (Ho et al. 2020, Eq. 4)."""
    return math.sqrt(level) * clean + math.sqrt(1 - level) * noise


def ddim(
    denoise: Callable[[AnyArray, int], AnyArray],
    x: AnyArray,
    levels: Sequence[float],
    predicts: str = "v",
    clip: Callable[[AnyArray], AnyArray] | None = None,
) -> AnyArray:
    """Deterministic DDIM, eta 0 (Song et al. 2021, Eq. 12): the next state is `noised(x0, eps, next level)`.

    With predicts "v" there is no division, so pure noise (alpha_bar = 0) is an ordinary first level.

    denoise: (x, step index) -> the prediction of what `predicts`, a name of PREDICTIONS, says, of the shape of x.
    x: the state at levels[0]. levels: alpha_bar per step, then 1.0. clip: limits x0; eps then follows from the limited
    x0, so that the state stays on the path of the two. Returns x0 after the last step.
    """
    split = PREDICTIONS[predicts]
    for i, (level, following) in enumerate(pairwise(levels)):
        clean, noise = split(x, denoise(x, i), level)
        if clip is not None:
            clean, noise = from_clean(x, clip(clean), level)
        x = noised(clean, noise, following)
    return x


def ancestral(
    denoise: Callable[[AnyArray, int], Any],
    x: AnyArray,
    levels: Sequence[float],
    noise: Callable[[int], AnyArray],
    predicts: str = "eps",
    variance: str = "small",
    clip: Callable[[AnyArray], AnyArray] | None = None,
    guide: Callable[[AnyArray, int], AnyArray] | None = None,
) -> AnyArray:
    """Ancestral sampling (Ho et al. 2020, Algorithm 2), over any subset of the training steps; x0 after the last step.

    x, levels and predicts are as in `ddim`; clip: limits x0; guide: (x, step index) -> the state that the step starts
    from instead of x; noise: step index -> standard normal values of the shape of x, called in every step but the last.

    variance: "small" is beta~, that of q(x_{t-1} | x_t, x0); "large" is beta; "learned" lies between, where denoise
    returns a pair of the prediction and the share s of the variance's range, -1 .. 1:
    exp(v log beta + (1 - v) log beta~), v = (s + 1) / 2 (Nichol and Dhariwal 2021, Eq. 15).
    """
    split = PREDICTIONS[predicts]
    last = len(levels) - 2
    for i, (level, following) in enumerate(pairwise(levels)):
        x = x if guide is None else guide(x, i)
        predicted = denoise(x, i)
        value, share = predicted if variance == "learned" else (predicted, _SHARES[variance])
        clean, _ = split(x, value, level)
        x_next = _posterior(x, clean if clip is None else clip(clean), level, following)
        x = x_next if i == last else x_next + _deviation(share, level, following) * noise(i)
    return x


def _deviation(share: AnyArray | float, level: float, following: float) -> AnyArray | float:
    """Standard deviation of the noise of a step: sqrt(beta~^(1 - v) beta^v), v = (share + 1) / 2."""
    beta = 1 - level / following
    small = beta * (1 - following) / (1 - level)
    return math.sqrt(small) * (beta / small) ** (share * 0.25 + 0.25)


def posterior_mean(denoise: Callable[[AnyArray, int], AnyArray], x: AnyArray, levels: Sequence[float]) -> AnyArray:
    """DiffIR's reverse chain: the mean of q(x_{t-1} | x_t, x0) (Ho et al. 2020, Eq. 7), without added noise.

    denoise: (x, step index) -> x0. levels: alpha_bar_T .. alpha_bar_1, then 1.0; step 0 is t = T. Returns x0.
    """
    for i, (level, following) in enumerate(pairwise(levels)):
        x = _posterior(x, denoise(x, i), level, following)
    return x


def _posterior(x: AnyArray, clean: AnyArray, level: float, following: float) -> AnyArray:
    """The mean of q(x_{t-1} | x_t, x0), from `level` to `following` (Ho et al. 2020, Eq. 7)."""
    alpha, variance = level / following, 1 - level
    return math.sqrt(following) * (1 - alpha) / variance * clean + math.sqrt(alpha) * (1 - following) / variance * x
