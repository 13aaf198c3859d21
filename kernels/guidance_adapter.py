"""DTPM's conditional guidance adapter: h + leave(gelu(enter(h)) + gelu(conv(guide))).

"Learning Diffusion Texture Priors for Image Restoration" (CVPR 2024), the adapter of stage II in our reading:
`enter` and `leave` are 1x1 convolutions, `conv` is a 3x3 of the guide, the estimate y_E at the resolution of h, minus
0.5.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import LARGE, Case
from .select import choose

__all__ = ["CASES", "example", "fused", "guidance_adapter", "reference", "unsupported"]

# One pixel; odd sizes with borders on all sides; channels and widths that are no powers of two; the widest.
CASES = (
    Case(1, 16, 1, 1),
    Case(2, 16, 5, 7),
    Case(1, 32, 11, 13),
    Case(1, 24, 9, 3),
    Case(2, 100, 3, 4),
    Case(1, 128, 4, 9),
    *LARGE,
)
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
    """The op in plain PyTorch."""
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
    """h + leave(gelu(enter(h)) + gelu(conv(guide))), gelu by the error function.

    h: (N, C, H, W). guide: (N, 3, H, W), centred: the convolution pads it with 0. enter_weight: (D, C, 1, 1),
    guide_weight: (D, 3, 3, 3), leave_weight: (C, D, 1, 1); biases (D,), (D,), (C,). Returns the shape of h.
    """
    weights = enter_weight, enter_bias, guide_weight, guide_bias, leave_weight, leave_bias
    return choose(reference, fused, unsupported, h, guide, *weights)


def unsupported(h: Tensor, guide: Tensor, enter_weight: Tensor, *rest: Tensor) -> str | None:
    """Why the kernels cannot take the call, or None."""
    del h, guide, rest
    width, channels = enter_weight.shape[:2]
    if channels > CHANNELS:
        return f"{channels} channels; the kernels take up to {CHANNELS}"
    return f"{width} channels inside; the kernels take up to {WIDTH}" if width > WIDTH else None


def example(case: Case, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Arguments of one call, float32 on the CPU."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    n, c, height, width = case.shape
    inside = max(8, c // 4)  # as in the models
    return (
        normal(*case.shape),
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
    """The twin as an operator of PyTorch; the result is channels_last."""
    from . import guidance_adapter_triton

    weights = enter_weight, enter_bias, guide_weight, guide_bias, leave_weight, leave_bias
    return guidance_adapter_triton.forward(h, guide, *weights)


@torch.library.custom_op("pocketprior::guidance_adapter_backward", mutates_args=())
def _fused_backward(
    dy: Tensor,
    h: Tensor,
    guide: Tensor,
    enter_weight: Tensor,
    enter_bias: Tensor,
    guide_weight: Tensor,
    guide_bias: Tensor,
    leave_weight: Tensor,
    guided: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Without `guided` the gradient of the guide is empty."""
    from . import guidance_adapter_triton

    weights = enter_weight, enter_bias, guide_weight, guide_bias, leave_weight
    return guidance_adapter_triton.backward(dy, h, guide, *weights, guided)


@fused.register_fake
def _(h: Tensor, guide: Tensor, *weights: Tensor) -> Tensor:
    del guide, weights
    return torch.empty_like(h, memory_format=torch.channels_last)


@_fused_backward.register_fake
def _(
    dy: Tensor,
    h: Tensor,
    guide: Tensor,
    enter_weight: Tensor,
    enter_bias: Tensor,
    guide_weight: Tensor,
    guide_bias: Tensor,
    leave_weight: Tensor,
    guided: bool,
) -> tuple[Tensor, ...]:
    del dy
    weights = enter_weight, enter_bias, guide_weight, guide_bias, leave_weight
    return (
        torch.empty_like(h, memory_format=torch.channels_last),
        torch.empty_like(guide, memory_format=torch.channels_last) if guided else guide.new_empty(0),
        *(w.new_empty(w.shape) for w in weights),
        h.new_empty(h.shape[1]),
    )


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[:-1])


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    guided = ctx.needs_input_grad[1]
    dh, dguide, *dweights = _fused_backward(dy, *ctx.saved_tensors, guided)
    return dh, dguide if guided else None, *dweights


fused.register_autograd(_gradients, setup_context=_save)
