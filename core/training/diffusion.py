"""What is common to the training of diffusion models: levels, mixing, the v target and its loss.

A level `bar` is the share of signal variance: x_t = sqrt(bar) x_0 + sqrt(1 - bar) noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["draw_level", "mix", "v_loss", "v_target"]


def draw_level(bars: Sequence[float], shape: Sequence[int], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """A random time of one sample and its noise. bars: bar_1 .. bar_T, from nearly clean to nearly pure noise.

    Returns "t" float32 () in (0, 1], "bar" float32 () (that of t) and "noise" float32 of `shape`, standard normal.
    """
    step = int(rng.integers(1, len(bars) + 1))
    return {
        "t": np.array(step / len(bars), np.float32),
        "bar": np.array(bars[step - 1], np.float32),
        "noise": rng.standard_normal(tuple(shape), dtype=np.float32),
    }


def mix(clean: Tensor, noise: Tensor, bar: Tensor) -> Tensor:
    """x_t = sqrt(bar) clean + sqrt(1 - bar) noise. clean, noise: (N, ...); bar: (N,) in [0, 1]."""
    bar = _spread(bar, clean)
    return bar.sqrt() * clean + (1 - bar).sqrt() * noise


def v_target(clean: Tensor, noise: Tensor, bar: Tensor) -> Tensor:
    """v = sqrt(bar) noise - sqrt(1 - bar) clean (Salimans and Ho 2022, Appendix D). Shapes as in `mix`."""
    bar = _spread(bar, clean)
    return bar.sqrt() * noise - (1 - bar).sqrt() * clean


def v_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error on v: the x0 error weighted by SNR + 1 (Salimans and Ho 2022)."""
    return F.mse_loss(predicted.float(), target)


def _spread(bar: Tensor, like: Tensor) -> Tensor:
    return bar.reshape(-1, *[1] * (like.dim() - 1))
