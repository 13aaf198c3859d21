"""DiffIR's modulated layer normalisation: norm(x) * scale + shift, over the channels of each pixel.

Xia et al., "DiffIR: Efficient Diffusion Model for Image Restoration" (ICCV 2023), Eqs. 3 and 5.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .select import Shape, choose, operator

__all__ = ["CASES", "example", "fused", "modulated_norm", "reference", "unsupported"]

CASES = ((1, 16, 1, 1), (2, 16, 5, 7), (1, 32, 11, 13), (1, 24, 9, 3), (2, 48, 4, 5))
EPS = 1e-5
WIDEST = 512  # channels: one program holds whole pixels


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """The op in plain PyTorch; arguments as `modulated_norm`."""
    pixels = x.movedim(1, -1)  # in channels_last memory this moves nothing
    if bias is not None:
        y = F.layer_norm(pixels, weight.shape, weight, bias, EPS)
    else:
        y = pixels * torch.rsqrt(pixels.var(dim=-1, keepdim=True, correction=0) + EPS) * weight
    return torch.addcmul(shift[:, :, None, None], y.movedim(-1, 1), scale[:, :, None, None])


def modulated_norm(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """Compute layer_norm(x) * scale + shift.

    Args:
        x: (N, C, H, W).
        weight: (C,).
        bias: (C,). None: the variance is taken about the mean, but the mean is not subtracted.
        scale: (N, C).
        shift: (N, C).

    Returns:
        The shape of `x`.
    """
    return choose(reference, fused, unsupported, x, weight, bias, scale, shift)


def unsupported(x: Tensor, *_: Tensor | None) -> str | None:
    """Return why the kernel cannot take the call, or None."""
    return f"{x.shape[1]} channels; the kernel takes up to {WIDEST}" if x.shape[1] > WIDEST else None


def example(shape: Shape, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    """Return the arguments of one call, float32 on the CPU."""
    normal = partial(torch.randn, generator=generator)
    n, c = shape[:2]
    bias = normal(c) if n > 1 else None
    return normal(*shape), 1 + 0.2 * normal(c), bias, 1 + 0.2 * normal(n, c), normal(n, c)


fused = operator("modulated_norm", "Tensor x, Tensor weight, Tensor? bias, Tensor scale, Tensor shift")
"""The Triton implementation as an operator of PyTorch; the result is channels_last."""
