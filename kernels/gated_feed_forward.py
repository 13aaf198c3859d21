"""DiffIR's gated feed-forward: 1x1 and depthwise 3x3 twice, one gated by GELU of the other, and a 1x1 back.

DGFN of Xia et al., "DiffIR: Efficient Diffusion Model for Image Restoration" (ICCV 2023), Eq. 5, which is the gated
feed-forward network of Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration" (CVPR
2022), Eq. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .select import Shape, choose

__all__ = ["CASES", "example", "fused", "gated_feed_forward", "reference", "unsupported"]

# One pixel in each of two images; odd sizes over several tiles, channels that are no power of two; more channels than
# one program holds.
CASES = ((2, 16, 1, 1), (1, 20, 3, 17), (1, 132, 2, 3))


def reference(
    x: Tensor, gate_mix: Tensor, gate_depth: Tensor, value_mix: Tensor, value_depth: Tensor, leave: Tensor
) -> Tensor:
    """The op in plain PyTorch; arguments as `gated_feed_forward`."""
    hidden = leave.shape[1]
    gate = F.conv2d(F.conv2d(x, gate_mix), gate_depth, padding=1, groups=hidden)
    value = F.conv2d(F.conv2d(x, value_mix), value_depth, padding=1, groups=hidden)
    return F.conv2d(F.gelu(gate) * value, leave)


def gated_feed_forward(
    x: Tensor, gate_mix: Tensor, gate_depth: Tensor, value_mix: Tensor, value_depth: Tensor, leave: Tensor
) -> Tensor:
    """Compute leave(gelu(gate) value), where gate and value are each a 1x1 and a depthwise 3x3 of x.

    Args:
        x: (N, C, H, W).
        gate_mix: 1x1 weights (E, C, 1, 1).
        gate_depth: depthwise 3x3 weights (E, 1, 3, 3).
        value_mix: as `gate_mix`.
        value_depth: as `gate_depth`.
        leave: 1x1 weights (C, E, 1, 1).

    Returns:
        The shape of `x`.
    """
    return choose(reference, fused, unsupported, x, gate_mix, gate_depth, value_mix, value_depth, leave)


def unsupported(x: Tensor, *others: Tensor) -> str | None:
    """Return None: the kernels take all sizes."""
    del x, others


def example(shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the arguments of one call, float32 on the CPU."""
    c = shape[1]
    hidden = 36 if c % 16 else 2 * c  # 36 are two blocks, one of them not full

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    mixes = [
        t for _ in range(2) for t in (normal(hidden, c, 1, 1, scale=c**-0.5), normal(hidden, 1, 3, 3, scale=1 / 3))
    ]
    return normal(*shape), *mixes, normal(c, hidden, 1, 1, scale=hidden**-0.5)


@torch.library.custom_op("pocketprior::gated_feed_forward", mutates_args=())
def fused(
    x: Tensor, gate_mix: Tensor, gate_depth: Tensor, value_mix: Tensor, value_depth: Tensor, leave: Tensor
) -> Tensor:
    """The Triton implementation as an operator of PyTorch; the result is channels_last."""
    from . import gated_feed_forward_triton

    return gated_feed_forward_triton.forward(x, (gate_mix, value_mix), (gate_depth, value_depth), leave)


@torch.library.custom_op("pocketprior::gated_feed_forward_backward", mutates_args=())
def _fused_backward(dy: Tensor, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from . import gated_feed_forward_triton

    gate_mix, gate_depth, value_mix, value_depth, leave = weights
    return gated_feed_forward_triton.backward(dy, x, (gate_mix, value_mix), (gate_depth, value_depth), leave)


@fused.register_fake
def _(x: Tensor, *weights: Tensor) -> Tensor:
    del weights
    return torch.empty_like(x, memory_format=torch.channels_last)


@_fused_backward.register_fake
def _(dy: Tensor, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del dy
    leave = weights[-1]
    channels, hidden = leave.shape[:2]
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    shapes = (2, hidden, channels, 1, 1), (2, hidden, 1, 3, 3), leave.shape
    dmix, ddepth, dleave = (x.new_empty(shape) for shape in shapes)
    return dx, dmix, ddepth, dleave


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
    x, *weights = ctx.saved_tensors
    dx, dmix, ddepth, dleave = _fused_backward(dy, x, weights)
    return dx, dmix[0], ddepth[0], dmix[1], ddepth[1], dleave


fused.register_autograd(_gradients, setup_context=_save)
