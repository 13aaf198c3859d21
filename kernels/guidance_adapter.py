"""DTPM's conditional guidance adapter: h + leave(gelu(enter(h)) + gelu(conv(guide))).

"Learning Diffusion Texture Priors for Image Restoration" (CVPR 2024), the adapter of stage II in our reading:
`enter` and `leave` are 1x1 convolutions, `conv` is a 3x3 of the guide, the estimate y_E at the resolution of h, minus
0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .select import Shape, choose

__all__ = ["CASES", "example", "fused", "guidance_adapter", "reference", "unsupported"]

# One pixel; odd sizes with borders on all sides; channels and widths that are no powers of two; the widest.
CASES = ((1, 16, 1, 1), (2, 16, 5, 7), (1, 32, 11, 13), (1, 24, 9, 3), (2, 100, 3, 4), (1, 128, 4, 9))
CHANNELS, WIDTH = 128, 64  # most that the kernels take: one program holds both 1x1 convolutions


def reference(
    h: Tensor,
    guide: Tensor,
    enter_weight: Tensor,
    enter_bias: Tensor,
    guide_weight: Tensor,
    guide_bias: Tensor,
    leave_weight: Tensor,
    leave_bias: Tensor,
) -> Tensor:
    """The op in plain PyTorch; arguments as `guidance_adapter`."""
    guidance = F.conv2d(guide, guide_weight, guide_bias, padding=1)
    return h + F.conv2d(F.gelu(F.conv2d(h, enter_weight, enter_bias)) + F.gelu(guidance), leave_weight, leave_bias)


def guidance_adapter(
    h: Tensor,
    guide: Tensor,
    enter_weight: Tensor,
    enter_bias: Tensor,
    guide_weight: Tensor,
    guide_bias: Tensor,
    leave_weight: Tensor,
    leave_bias: Tensor,
) -> Tensor:
    """Compute h + leave(gelu(enter(h)) + gelu(conv(guide))), with gelu by the error function.

    Args:
        h: (N, C, H, W).
        guide: (N, 3, H, W), centred: the convolution pads it with 0.
        enter_weight: 1x1 (D, C, 1, 1).
        enter_bias: (D,).
        guide_weight: 3x3 (D, 3, 3, 3).
        guide_bias: (D,).
        leave_weight: 1x1 (C, D, 1, 1).
        leave_bias: (C,).

    Returns:
        The shape of `h`.
    """
    weights = enter_weight, enter_bias, guide_weight, guide_bias, leave_weight, leave_bias
    return choose(reference, fused, unsupported, h, guide, *weights)


def unsupported(h: Tensor, guide: Tensor, enter_weight: Tensor, *rest: Tensor) -> str | None:
    """Return why the kernels cannot take the call, or None."""
    del h, guide, rest
    width, channels = enter_weight.shape[:2]
    if channels > CHANNELS:
        return f"{channels} channels; the kernels take up to {CHANNELS}"
    return f"{width} channels inside; the kernels take up to {WIDTH}" if width > WIDTH else None


def example(shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the arguments of one call, float32 on the CPU."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    n, c, height, width = shape
    inside = max(8, c // 4)  # as in the models
    return (
        normal(*shape),
        normal(n, 3, height, width),
        normal(inside, c, 1, 1) * c**-0.5,
        normal(inside),
        normal(inside, 3, 3, 3) * 0.3,
        normal(inside),
        normal(c, inside, 1, 1) * inside**-0.5,
        normal(c),
    )


@torch.library.custom_op("pocketprior::guidance_adapter", mutates_args=())
def fused(
    h: Tensor,
    guide: Tensor,
    enter_weight: Tensor,
    enter_bias: Tensor,
    guide_weight: Tensor,
    guide_bias: Tensor,
    leave_weight: Tensor,
    leave_bias: Tensor,
) -> Tensor:
    """The Triton implementation as an operator of PyTorch; the result is channels_last."""
    from . import guidance_adapter_triton

    weights = enter_weight, enter_bias, guide_weight, guide_bias, leave_weight, leave_bias
    return guidance_adapter_triton.forward(h, guide, *weights)


@torch.library.custom_op("pocketprior::guidance_adapter_backward", mutates_args=())
def _fused_backward(dy: Tensor, h: Tensor, guide: Tensor, weights: Sequence[Tensor], guided: bool) -> list[Tensor]:
    """Gradients in the order of the op's arguments; without `guided` that of the guide is empty."""
    from . import guidance_adapter_triton

    return guidance_adapter_triton.backward(dy, h, guide, weights, guided)


@fused.register_fake
def _(h: Tensor, guide: Tensor, *weights: Tensor) -> Tensor:
    del guide, weights
    return torch.empty_like(h, memory_format=torch.channels_last)


@_fused_backward.register_fake
def _(dy: Tensor, h: Tensor, guide: Tensor, weights: Sequence[Tensor], guided: bool) -> list[Tensor]:
    del dy
    return [
        torch.empty_like(h, memory_format=torch.channels_last),
        torch.empty_like(guide, memory_format=torch.channels_last) if guided else guide.new_empty(0),
        *(w.new_empty(w.shape) for w in weights),
        h.new_empty(h.shape[1]),
    ]


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[:-1])


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    guided = ctx.needs_input_grad[1]
    h, guide, *weights = ctx.saved_tensors
    dh, dguide, *dweights = _fused_backward(dy, h, guide, weights, guided)
    return dh, dguide if guided else None, *dweights


fused.register_autograd(_gradients, setup_context=_save)
