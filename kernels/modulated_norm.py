"""DiffIR's modulated layer normalisation: norm(x) * scale + shift, over the channels of each pixel.

Xia et al., "DiffIR: Efficient Diffusion Model for Image Restoration" (ICCV 2023), Eqs. 3 and 5.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import LARGE, SMALL, Case
from .select import choose

__all__ = ["CASES", "example", "fused", "modulated_norm", "reference", "unsupported"]

CASES = (*SMALL, Case(2, 48, 4, 5), *LARGE)
EPS = 1e-5
WIDEST = 512  # channels: one program holds whole pixels


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """The op in plain PyTorch."""
    pixels = x.movedim(1, -1)  # in channels_last memory this moves nothing
    if bias is not None:
        y = F.layer_norm(pixels, weight.shape, weight, bias, EPS)
    else:
        y = pixels * torch.rsqrt(pixels.var(dim=-1, keepdim=True, correction=0) + EPS) * weight
    return torch.addcmul(shift[:, :, None, None], y.movedim(-1, 1), scale[:, :, None, None])


def modulated_norm(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """layer_norm(x) * scale + shift. Without `bias` the variance is taken about the mean, but the mean stays in.

    x: (N, C, H, W). weight, bias: (C,). scale, shift: (N, C). Returns the shape of x.
    """
    return choose(reference, fused, unsupported, x, weight, bias, scale, shift)


def unsupported(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> str | None:
    """Why the kernel cannot take the call, or None."""
    del weight, bias, scale, shift
    return f"{x.shape[1]} channels; the kernel takes up to {WIDEST}" if x.shape[1] > WIDEST else None


def example(case: Case, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    """Arguments of one call, float32 on the CPU."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    c = case.channels
    bias = normal(c) if case.n > 1 else None
    return normal(*case.shape), 1 + 0.2 * normal(c), bias, 1 + 0.2 * normal(case.n, c), normal(case.n, c)


@torch.library.custom_op("pocketprior::modulated_norm", mutates_args=())
def fused(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """The twin as an operator of PyTorch; the result is channels_last."""
    from . import modulated_norm_triton

    return modulated_norm_triton.forward(x, weight, bias, scale, shift)


@torch.library.custom_op("pocketprior::modulated_norm_backward", mutates_args=())
def _fused_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from . import modulated_norm_triton

    return modulated_norm_triton.backward(dy, x, weight, bias, scale)


@fused.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    del weight, bias, scale, shift
    return torch.empty_like(x, memory_format=torch.channels_last)


@_fused_backward.register_fake
def _(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    del dy, bias
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    return (
        dx,
        torch.empty_like(weight),
        torch.empty_like(weight),
        scale.new_empty(scale.shape),
        scale.new_empty(scale.shape),
    )


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    x, weight, bias, scale, _ = inputs
    ctx.save_for_backward(x, weight, bias, scale)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, scale = ctx.saved_tensors
    dx, dweight, dbias, dscale, dshift = _fused_backward(dy, x, weight, bias, scale)
    return dx, dweight, None if bias is None else dbias, dscale, dshift


fused.register_autograd(_gradients, setup_context=_save)
