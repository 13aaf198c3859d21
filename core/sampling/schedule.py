"""Noise levels as plain numbers.

A level is alpha_bar, the share of signal variance: x = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise. A list of
levels runs from pure noise (0.0) to clean (1.0); packs store the numbers themselves, never a recipe for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from operator import mul

__all__ = ["SCHEDULES", "TRAINING_STEPS", "cosine", "ddpm", "diffir", "linear", "quadratic", "strided", "trailing"]

TRAINING_STEPS = 1000  # training steps of the DTPM schedules


def ddpm(steps: int = TRAINING_STEPS, first: float = 1e-4, last: float = 0.02) -> list[float]:
    """alpha_bar_1 .. alpha_bar_steps of the linear-beta schedule (Ho et al. 2020) as published: the last is 4e-5."""
    return list(accumulate((1 - (first + (last - first) * i / (steps - 1)) for i in range(steps)), mul))


def linear(steps: int = TRAINING_STEPS, first: float = 1e-4, last: float = 0.02) -> list[float]:
    """alpha_bar_1 .. alpha_bar_steps of the linear-beta schedule (Ho et al. 2020), rescaled to end in pure noise.

    The rescaling to zero terminal signal-to-noise ratio is Algorithm 1 of Lin et al., "Common Diffusion Noise
    Schedules and Sample Steps are Flawed" (WACV 2024): alpha_bar_steps is exactly 0.
    """
    root = [math.sqrt(alpha_bar) for alpha_bar in ddpm(steps, first, last)]
    start, end = root[0], root[-1]
    return [((r - end) * start / (start - end)) ** 2 for r in root]


def cosine(steps: int = TRAINING_STEPS) -> list[float]:
    """alpha_bar_1 .. alpha_bar_steps = cos^2(pi t / 2), the cosine schedule (Nichol and Dhariwal 2021) without offset.

    alpha_bar_steps is exactly 0. With few trailing steps it spends more of them where texture is decided than `linear`.
    """
    return [math.cos(math.pi / 2 * i / steps) ** 2 for i in range(1, steps)] + [0.0]


SCHEDULES: dict[str, Callable[[], list[float]]] = {"cosine": cosine, "linear": linear}


def trailing(sampling_steps: int, alpha_bars: list[float]) -> tuple[list[float], list[float]]:
    """Levels and times for `sampling_steps` of the training steps, whose alpha_bars run from nearly clean to noisy.

    Trailing spacing: the first step starts from pure noise (4 of 1000: 1000, 750, 500, 250). Levels have one number
    more than times and end in 1.0; times are in (0, 1]. Raises ValueError unless 1 <= sampling_steps <=
    len(alpha_bars).
    """
    return strided(sampling_steps, alpha_bars, len(alpha_bars))


def strided(sampling_steps: int, alpha_bars: list[float], start: int) -> tuple[list[float], list[float]]:
    """As `trailing`, but from level number `start` in 1..len(alpha_bars) instead of the last.

    4 steps from level 200 of 1000: 200, 150, 100, 50. The times stay shares of all training steps.
    Raises ValueError unless 1 <= sampling_steps <= start <= len(alpha_bars).
    """
    if not 1 <= start <= len(alpha_bars):
        raise ValueError(f"start must be in 1..{len(alpha_bars)}, got {start}")
    if not 1 <= sampling_steps <= start:
        raise ValueError(f"sampling_steps must be in 1..{start}, got {sampling_steps}")
    return _numbered([round(start - i * start / sampling_steps) for i in range(sampling_steps)], alpha_bars)


def quadratic(sampling_steps: int, alpha_bars: list[float], start: int) -> tuple[list[float], list[float]]:
    """As `strided`, but with levels that lie closer to one another towards the clean end.

    Level numbers fall as squares do (Song et al. 2021, Appendix D.2), 4 of 300: 300, 169, 75, 19.
    Raises ValueError unless 1 <= sampling_steps <= start <= len(alpha_bars).
    """
    strided(sampling_steps, alpha_bars, start)  # raises
    left = range(sampling_steps, 0, -1)
    return _numbered([max(n, round(start * (n / sampling_steps) ** 2)) for n in left], alpha_bars)


def _numbered(numbers: list[int], alpha_bars: list[float]) -> tuple[list[float], list[float]]:
    """Levels and times of training steps with these numbers, from 1."""
    return [alpha_bars[n - 1] for n in numbers] + [1.0], [n / len(alpha_bars) for n in numbers]


def diffir(steps: int = 4, first: float = 0.1, last: float = 0.99) -> list[float]:
    """alpha_bar_1 .. alpha_bar_steps of DiffIR: betas are the squares of a linear ramp between the roots of the ends.

    With one step, its level is the noisiest, 1 - last.
    """
    if steps == 1:
        return [1 - last]
    ramp = [math.sqrt(first) + (math.sqrt(last) - math.sqrt(first)) * i / (steps - 1) for i in range(steps)]
    return list(accumulate((1 - root * root for root in ramp), mul))
