"""DiffIR's gated feed-forward: 1x1 and depthwise 3x3 twice, one gated by GELU of the other, and a 1x1 back.

DGFN of Xia et al., "DiffIR: Efficient Diffusion Model for Image Restoration" (ICCV 2023), Eq. 5, which is the gated
feed-forward network of Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration" (CVPR
2022), Eq. 2.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .select import Shape, choose, operator

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


def unsupported(*_: Tensor) -> None:
    """Return None: the kernels take all sizes."""


def example(shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the arguments of one call, float32 on the CPU."""
    normal = partial(torch.randn, generator=generator)
    c = shape[1]
    hidden = 36 if c % 16 else 2 * c  # 36 are two blocks, one of them not full
    mixes = [t for _ in range(2) for t in (c**-0.5 * normal(hidden, c, 1, 1), 1 / 3 * normal(hidden, 1, 3, 3))]
    return normal(*shape), *mixes, hidden**-0.5 * normal(c, hidden, 1, 1)


fused = operator(
    "gated_feed_forward",
    "Tensor x, Tensor gate_mix, Tensor gate_depth, Tensor value_mix, Tensor value_depth, Tensor leave",
)
"""The Triton implementation as an operator of PyTorch; the result is channels_last."""
