"""DiffIR's attention between channels: each attends to all of its head, by their cosines over the whole image.

DMTA of Xia et al., "DiffIR: Efficient Diffusion Model for Image Restoration" (ICCV 2023), Eq. 4, which is the
transposed attention of Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration" (CVPR
2022), Eq. 1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .select import Shape, choose, operator

__all__ = ["CASES", "channel_attention", "example", "fused", "reference", "unsupported"]

# One pixel; two images, and heads whose width is no power of two; odd sizes over several tiles; more channels than one
# program writes, in a head that is wider than it holds at once.
CASES = ((1, 3, 1, 1), (2, 6, 1, 3), (1, 20, 3, 17), (1, 72, 1, 2))
SMALLEST = 1e-12  # of the product of two lengths
WIDEST = 128  # channels of a head: one program holds its map of channels x channels


def reference(x: Tensor, *others: Any) -> Tensor:
    """The op in plain PyTorch; arguments as `channel_attention`."""
    *mixes, temperature, out, heads = others
    n, c, h, w = x.shape
    q, k, v = (
        F.conv2d(F.conv2d(x, mix), depth, padding=1, groups=c).reshape(n, heads, c // heads, h * w)
        for mix, depth in zip(mixes[::2], mixes[1::2], strict=True)
    )
    # Dividing the c by c map by the lengths of q and k is cheaper than dividing them, and the same.
    lengths = torch.linalg.vector_norm(q, dim=-1)[..., :, None] * torch.linalg.vector_norm(k, dim=-1)[..., None, :]
    weights = (q @ k.transpose(-1, -2) / lengths.clamp_min(SMALLEST) * temperature).softmax(dim=-1)
    return F.conv2d((weights @ v).reshape(n, c, h, w), out)


def channel_attention(
    x: Tensor,
    q_mix: Tensor,
    q_depth: Tensor,
    k_mix: Tensor,
    k_depth: Tensor,
    v_mix: Tensor,
    v_depth: Tensor,
    temperature: Tensor,
    out: Tensor,
    heads: int,
) -> Tensor:
    """Compute out(softmax(cosine(q, k) temperature) v), where q, k and v are each a 1x1 and a depthwise 3x3 of x.

    Args:
        x: (N, C, H, W).
        q_mix: 1x1 weights (C, C, 1, 1).
        q_depth: depthwise 3x3 weights (C, 1, 3, 3).
        k_mix: as `q_mix`.
        k_depth: as `q_depth`.
        v_mix: as `q_mix`.
        v_depth: as `q_depth`.
        temperature: factor of the cosines, (heads, 1, 1).
        out: 1x1 weights (C, C, 1, 1).
        heads: divides C.

    Returns:
        The shape of `x`.
    """
    return choose(
        reference, fused, unsupported, x, q_mix, q_depth, k_mix, k_depth, v_mix, v_depth, temperature, out, heads
    )


def unsupported(x: Tensor, *others: Any) -> str | None:
    """Return why the kernel cannot take the call, or None."""
    size = x.shape[1] // others[-1]
    return f"{size} channels per head; the kernel takes up to {WIDEST}" if size > WIDEST else None


def example(shape: Shape, generator: torch.Generator) -> tuple[Tensor | int, ...]:
    """Return the arguments of one call, float32 on the CPU."""
    normal = partial(torch.randn, generator=generator)
    _, c, height, width = shape
    heads = max(2 if c < 16 else 1, c // 64)
    if height * width == 1:
        heads = c  # every cosine is 1 or -1 there: gradients of q and k would be nothing but rounding errors
    # Taps near one half of the image itself: the lengths of q and k are not near zero at a single pixel, and their
    # product over 256 x 256 pixels fits into float16, which the reference needs.
    centre = torch.zeros(3, 3).index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(0.5))
    mixes = [t for _ in range(3) for t in (c**-0.5 * normal(c, c, 1, 1), centre + 0.1 * normal(c, 1, 3, 3))]
    return normal(*shape), *mixes, 1 + 0.2 * normal(heads, 1, 1), c**-0.5 * normal(c, c, 1, 1), heads


def _statistics(x: Tensor, *others: Any) -> list[Tensor]:
    heads = others[-1]
    size = x.shape[1] // heads
    return [x.new_empty((len(x), heads, size + 2, size), dtype=torch.float32)]


fused = operator(
    "channel_attention",
    "Tensor x, Tensor q_mix, Tensor q_depth, Tensor k_mix, Tensor k_depth, Tensor v_mix, Tensor v_depth, "
    "Tensor temperature, Tensor out, int heads",
    kept=_statistics,
)
"""The Triton implementation as an operator of PyTorch; the result is channels_last."""
