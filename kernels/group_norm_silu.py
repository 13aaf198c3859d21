"""Group normalisation, optionally FiLM, then SiLU: what precedes each convolution in Gen2Res's residual blocks.

Wu and He, "Group Normalization" (ECCV 2018), Eqs. 1 and 6; the scale and shift by the time embedding ("adaptive group
normalisation") are those of Dhariwal and Nichol, "Diffusion Models Beat GANs" (NeurIPS 2021), Section 3.1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .select import Shape, choose, operator

__all__ = ["CASES", "example", "fused", "group_norm_silu", "reference", "unsupported"]

# One channel; groups of 3 and of 5 channels; more pixels than one program takes.
CASES = ((1, 16, 1, 1), (2, 16, 5, 7), (1, 32, 11, 13), (1, 24, 9, 3), (2, 1, 6, 5), (2, 40, 3, 17), (1, 512, 5, 5))
EPS = 1e-5
WIDEST = 512  # channels: one program holds whole pixels


def reference(x: Tensor, groups: int, weight: Tensor, bias: Tensor, film: Tensor | None) -> Tensor:
    """The op in plain PyTorch; arguments as `group_norm_silu`."""
    x = F.group_norm(x, groups, weight, bias, EPS)
    if film is not None:
        scale, shift = film[:, :, None, None].chunk(2, dim=1)
        x = x * (1 + scale) + shift
    return F.silu(x)


def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, film: Tensor | None = None) -> Tensor:
    """Compute silu(group_norm(x) * (1 + scale) + shift), or silu(group_norm(x)) without `film`.

    Args:
        x: (N, C, H, W).
        groups: divides C.
        weight: (C,).
        bias: (C,).
        film: scale, then shift, (N, 2C).

    Returns:
        The shape of `x`.
    """
    return choose(reference, fused, unsupported, x, groups, weight, bias, film)


def unsupported(x: Tensor, groups: int, *_: Tensor | None) -> str | None:
    """Return why the kernels cannot take the call, or None."""
    if x.shape[1] > WIDEST:
        return f"{x.shape[1]} channels; the kernels take up to {WIDEST}"
    return f"{x.shape[1]} channels do not divide into {groups} groups" if x.shape[1] % groups else None


def example(shape: Shape, generator: torch.Generator) -> tuple[Tensor | int | None, ...]:
    """Return the arguments of one call, float32 on the CPU."""
    normal = partial(torch.randn, generator=generator)
    n, c = shape[:2]
    groups = next(g for g in (8, 4, 1) if (c % g == 0 and c // g >= 3) or g == 1)
    film = None if c % 16 else 0.3 * normal(n, 2 * c)
    return 3 + 2 * normal(*shape), groups, 1 + 0.2 * normal(c), 0.2 * normal(c), film


def _statistics(x: Tensor, groups: int, *_: Any) -> list[Tensor]:
    return [x.new_empty((2, x.shape[0], groups), dtype=torch.float32)]


fused = operator("group_norm_silu", "Tensor x, int groups, Tensor weight, Tensor bias, Tensor? film", kept=_statistics)
"""The Triton implementation as an operator of PyTorch; the result is channels_last."""
