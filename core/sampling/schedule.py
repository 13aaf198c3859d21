"""Noise levels as plain numbers.

A level is abar, the share of signal variance: x = sqrt(abar) x0 + sqrt(1 - abar) noise. A list of levels runs from
pure noise (0.0) to clean (1.0); packs store the numbers themselves, never a recipe for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "STEPS", "cosine", "ddpm", "diffir", "linear", "quadratic", "strided", "trailing"]

STEPS = 1000  # training steps of the DTPM schedules


def ddpm(steps: int = STEPS, first: float = 1e-4, last: float = 0.02) -> list[float]:
    """abar_1 .. abar_steps of the linear-beta schedule (Ho et al. 2020), as published: the last is 4e-5, not 0."""
    bars: list[float] = []
    product = 1.0
    for i in range(steps):
        product *= 1 - (first + (last - first) * i / (steps - 1))
        bars.append(product)
    return bars


def linear(steps: int = STEPS, first: float = 1e-4, last: float = 0.02) -> list[float]:
    """abar_1 .. abar_steps of the linear-beta schedule (Ho et al. 2020), rescaled to end in pure noise.

    The rescaling to zero terminal signal-to-noise ratio is Algorithm 1 of Lin et al., "Common Diffusion Noise
    Schedules and Sample Steps are Flawed" (WACV 2024): abar_steps is exactly 0.
    """
    root = [math.sqrt(bar) for bar in ddpm(steps, first, last)]
    start, end = root[0], root[-1]
    return [((r - end) * start / (start - end)) ** 2 for r in root]


def cosine(steps: int = STEPS) -> list[float]:
    """abar_1 .. abar_steps = cos^2(pi t / 2), the cosine schedule (Nichol and Dhariwal 2021) without offset.

    abar_steps is exactly 0. With few trailing steps it spends more of them where texture is decided than `linear`.
    """
    return [math.cos(math.pi / 2 * i / steps) ** 2 for i in range(1, steps)] + [0.0]


SCHEDULES: dict[str, Callable[[], list[float]]] = {"cosine": cosine, "linear": linear}


def trailing(sampling_steps: int, bars: list[float]) -> tuple[list[float], list[float]]:
    """Levels and times for `sampling_steps` of the `len(bars)` training steps, trailing spacing.

    Trailing means that the first step starts from pure noise (4 of 1000: 1000, 750, 500, 250).
    Returns (levels, times): levels has one number more than times and ends in 1.0; a time is in (0, 1].
    Raises ValueError unless 1 <= sampling_steps <= len(bars).
    """
    return strided(sampling_steps, bars, len(bars))


def strided(sampling_steps: int, bars: list[float], start: int) -> tuple[list[float], list[float]]:
    """Levels and times as `trailing` gives them, but from level `start` of 1 .. len(bars) instead of the last.

    4 steps from level 200 of 1000: 200, 150, 100, 50. The times stay shares of all training steps.
    Raises ValueError unless 1 <= sampling_steps <= start <= len(bars).
    """
    if not 1 <= start <= len(bars):
        raise ValueError(f"start must be in 1..{len(bars)}, got {start}")
    if not 1 <= sampling_steps <= start:
        raise ValueError(f"sampling_steps must be in 1..{start}, got {sampling_steps}")
    counts = [round(start - i * start / sampling_steps) for i in range(sampling_steps)]
    return [bars[c - 1] for c in counts] + [1.0], [c / len(bars) for c in counts]


def quadratic(sampling_steps: int, bars: list[float], start: int) -> tuple[list[float], list[float]]:
    """Levels and times from level `start` as `strided` gives them, but nearer to one another towards the clean end.

    Level numbers fall as squares do (Song et al. 2021, Appendix D.2), 4 of 300: 300, 169, 75, 19.
    Raises ValueError unless 1 <= sampling_steps <= start <= len(bars).
    """
    strided(sampling_steps, bars, start)  # raises
    left = range(sampling_steps, 0, -1)
    counts = [max(n, round(start * (n / sampling_steps) ** 2)) for n in left]
    return [bars[c - 1] for c in counts] + [1.0], [c / len(bars) for c in counts]


def diffir(steps: int = 4, first: float = 0.1, last: float = 0.99) -> list[float]:
    """abar_1 .. abar_steps of DiffIR: betas are the squares of a linear ramp between the roots of the ends.

    The one level of one step is the noisiest, 1 - last.
    """
    if steps == 1:
        return [1 - last]
    ramp = [math.sqrt(first) + (math.sqrt(last) - math.sqrt(first)) * i / (steps - 1) for i in range(steps)]
    bars: list[float] = []
    product = 1.0
    for root in ramp:
        product *= 1 - root * root
        bars.append(product)
    return bars
