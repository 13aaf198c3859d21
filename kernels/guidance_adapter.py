"""DTPM's conditional guidance adapter: h + leave(gelu(enter(h)) + gelu(conv(guide))).

"Learning Diffusion Texture Priors for Image Restoration" (CVPR 2024), the adapter of stage II in our reading:
`enter` and `leave` are 1x1 convolutions, `conv` is a 3x3 of the guide, the estimate y_E at the resolution of h, minus
0.5.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .select import Shape, choose, operator

__all__ = ["CASES", "example", "fused", "guidance_adapter", "reference", "unsupported"]

# One pixel; odd sizes with borders on all sides; channels and widths that are no powers of two; the widest.
CASES = ((1, 16, 1, 1), (2, 16, 5, 7), (1, 32, 11, 13), (1, 24, 9, 3), (2, 100, 3, 4), (1, 128, 4, 9))
CHANNELS, WIDTH = 128, 64  # most that the kernels take: one program holds both 1x1 convolutions


def reference(h: Tensor, guide: Tensor, *weights: Tensor) -> Tensor:
    """The op in plain PyTorch; arguments as `guidance_adapter`."""
    enter, enter_bias, conv, conv_bias, leave, leave_bias = weights
    guidance = F.conv2d(guide, conv, conv_bias, padding=1)
    return h + F.conv2d(F.gelu(F.conv2d(h, enter, enter_bias)) + F.gelu(guidance), leave, leave_bias)


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


def unsupported(_h: Tensor, _guide: Tensor, enter_weight: Tensor, *_: Tensor) -> str | None:
    """Return why the kernels cannot take the call, or None."""
    width, channels = enter_weight.shape[:2]
    if channels > CHANNELS:
        return f"{channels} channels; the kernels take up to {CHANNELS}"
    return f"{width} channels inside; the kernels take up to {WIDTH}" if width > WIDTH else None


def example(shape: Shape, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the arguments of one call, float32 on the CPU."""
    normal = partial(torch.randn, generator=generator)
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


fused = operator(
    "guidance_adapter",
    "Tensor h, Tensor guide, Tensor enter_weight, Tensor enter_bias, Tensor guide_weight, Tensor guide_bias, "
    "Tensor leave_weight, Tensor leave_bias",
    images=2,
)
"""The Triton implementation as an operator of PyTorch; the result is channels_last."""
