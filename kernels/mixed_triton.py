"""1x1 and then depthwise 3x3 of a picture, several side by side: what is before and after kernels that do the 3x3.

`hidden` (N, H, W, K) holds the results of all 1x1, one after the other. The kernels take the 3x3 of it by
`stencil_triton.convolved` and give the gradient of what they took, `dmixed`, of the same shape. Traffic by count, in
units of x, where K is k times its channels: `pointwise` 1 + k, `mixed_backward` 5 k + 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .depthwise_triton import depthwise_backward
from .products_triton import products

__all__ = ["mixed_backward", "pointwise", "taps_first"]


def pointwise(x: Tensor, mixes: Sequence[Tensor]) -> Tensor:
    """x: (N, C, H, W) channels_last. mixes: 1x1 weights (E, C, 1, 1). Returns (N, H, W, K), K the sum of all E."""
    return x.movedim(1, 3) @ _matrix(mixes).mT


def taps_first(depths: Sequence[Tensor]) -> Tensor:
    """3x3 weights (E, 1, 3, 3) -> (9, K): the taps of neighbouring channels are loaded at once."""
    return torch.cat([depth.reshape(-1, 9) for depth in depths]).t().contiguous()


def mixed_backward(
    dmixed: Tensor, hidden: Tensor, x: Tensor, mixes: Sequence[Tensor], depths: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (N, C, H, W) channels_last, of all 1x1 (K, C) and of all 3x3 (K, 3, 3), in the dtype of x."""
    dhidden, ddepth, _ = depthwise_backward(dmixed.movedim(3, 1), hidden.movedim(3, 1), torch.cat(list(depths)))
    dhidden = dhidden.movedim(1, 3)
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    torch.mm(dhidden.flatten(0, 2), _matrix(mixes), out=dx.movedim(1, 3).view(-1, x.shape[1]))
    return dx, products(dhidden, x.movedim(1, 3)).sum(dim=0).to(x.dtype), ddepth.squeeze(1)


def _matrix(mixes: Sequence[Tensor]) -> Tensor:
    return torch.cat([mix.flatten(1) for mix in mixes])
