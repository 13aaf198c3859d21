"""The small part of `naf_block`: the attention over channels, and gradients of weights from sums over each picture.

Beside the picture all of this is small, but each operation would be a launch of its own: here it is one kernel for the
attention, one for its gradient, and one for what frames the 1x1 convolutions that leave the halves.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .folded_triton import Leave, block
from .launch_triton import launch
from .rounded_triton import rounded

__all__ = ["attention", "attention_backward", "leave_gradients"]

STEP = 32  # rows that a program holds at a time
FINISHED = 8  # channels of a program that makes gradients from sums


@triton.jit
def _attention_kernel(
    sums_ptr, w_ptr, b_ptr, mean_ptr, scale_ptr, strips, pixels, H,
    BLOCK_H: tl.constexpr, STEP: tl.constexpr, STRIPS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    n, h, row = tl.program_id(0), tl.arange(0, BLOCK_H)[None, :], tl.arange(0, STEP)[:, None]
    total = tl.zeros((STEP, BLOCK_H), tl.float32)
    for i in range(STRIPS):
        strip = i * STEP + row
        total += tl.load(sums_ptr + (n * strips + strip) * H + h, (strip < strips) & (h < H), 0.0)
    mean = tl.sum(total, 0, keep_dims=True) / pixels
    tl.store(mean_ptr + n * H + h, mean, h < H)
    for i in range(BLOCKS):
        o = i * STEP + row
        w = tl.load(w_ptr + o * H + h, (o < H) & (h < H), 0.0).to(tl.float32)
        scale = tl.sum(w * mean, 1, keep_dims=True) + tl.load(b_ptr + o, o < H, 0.0).to(tl.float32)
        tl.store(scale_ptr + n * H + o, scale, o < H)


@triton.jit
def _attention_backward_kernel(
    products_ptr, out_ptr, beta_ptr, w_ptr, dscale_ptr, dmean_ptr, pixels, C, H,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, STEP: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    # The gradient of the scale from that of what leaves the spatial half; then of the mean that the scale came from.
    n, c, h = tl.program_id(0), tl.arange(0, BLOCK_C)[None, :], tl.arange(0, BLOCK_H)[None, :]
    beta = tl.load(beta_ptr + c, c < C, 0.0).to(tl.float32)
    dmean = tl.zeros((1, BLOCK_H), tl.float32)
    for i in range(BLOCKS):
        o = i * STEP + tl.arange(0, STEP)[:, None]
        live = (o < H) & (c < C)
        out = tl.load(out_ptr + c * H + o, live, 0.0).to(tl.float32)
        product = tl.load(products_ptr + (n * C + c) * H + o, live, 0.0)
        dscale = tl.sum(product * out * beta, 1, keep_dims=True)
        tl.store(dscale_ptr + n * H + o, dscale, o < H)
        w = tl.load(w_ptr + o * H + h, (o < H) & (h < H), 0.0).to(tl.float32)
        dmean += tl.sum(w * dscale, 0, keep_dims=True)
    tl.store(dmean_ptr + n * H + h, dmean / pixels, h < H)


@triton.jit
def _leave_gradients_kernel(
    products_ptr, sums_ptr, scale_ptr, w_ptr, b_ptr, factor_ptr, dw_ptr, db_ptr, dfactor_ptr, C, H, SUMS_STRIDE,
    N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    c, h = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)[:, None], tl.arange(0, BLOCK_H)[None, :]
    live = (c < C) & (h < H)
    product, dy_sum = tl.zeros((BLOCK_C, BLOCK_H), tl.float32), tl.zeros((BLOCK_C, 1), tl.float32)
    for n in range(N):
        found = tl.load(products_ptr + (n * C + c) * H + h, live, 0.0)
        if SCALED:
            found *= tl.load(scale_ptr + n * H + h, h < H, 0.0)
        product += found
        dy_sum += tl.load(sums_ptr + n * SUMS_STRIDE + c, c < C, 0.0)
    w = tl.load(w_ptr + c * H + h, live, 0.0).to(tl.float32)
    factor = tl.load(factor_ptr + c, c < C, 0.0).to(tl.float32)
    dfactor = tl.sum(w * product, 1, keep_dims=True) + dy_sum * tl.load(b_ptr + c, c < C, 0.0).to(tl.float32)
    tl.store(dw_ptr + c * H + h, rounded(product * factor, dw_ptr.dtype.element_ty), live)
    tl.store(db_ptr + c, rounded(dy_sum * factor, db_ptr.dtype.element_ty), c < C)
    tl.store(dfactor_ptr + c, rounded(dfactor, dfactor_ptr.dtype.element_ty), c < C)


def attention(sums: Tensor, pixels: int, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of a picture of H channels and the scale that is made from it, W mean + b, both (N, H) float32.

    sums: (N, strips, H) float32, parts of the sum over the `pixels` of a picture. weight: (H, H, 1, 1); bias: (H,).
    """
    n, strips, hidden = sums.shape
    mean, scale = sums.new_empty((n, hidden)), sums.new_empty((n, hidden))
    launch(
        _attention_kernel, (n,),
        sums, weight, bias, mean, scale, strips, pixels, hidden,
        BLOCK_H=block(hidden), STEP=STEP, STRIPS=triton.cdiv(strips, STEP), BLOCKS=triton.cdiv(hidden, STEP),
    )  # fmt: skip
    return mean, scale


def attention_backward(found: Tensor, pixels: int, weight: Tensor, leave: Leave) -> tuple[Tensor, Tensor]:
    """Gradients of the scale and, divided by `pixels`, of the mean, both (N, H) float32.

    found: dy^T g (N, C, H) float32 for y = x + leave.factor * (leave.weight (scale * g) + leave.bias).
    """
    n, channels, hidden = found.shape
    dscale, dmean = found.new_empty((n, hidden)), found.new_empty((n, hidden))
    launch(
        _attention_backward_kernel, (n,),
        found, leave.weight, leave.factor, weight, dscale, dmean, pixels, channels, hidden,
        BLOCK_C=block(channels), BLOCK_H=block(hidden), STEP=STEP, BLOCKS=triton.cdiv(hidden, STEP),
    )  # fmt: skip
    return dscale, dmean


def leave_gradients(found: Tensor, dy_sum: Tensor, scale: Tensor | None, leave: Leave) -> Leave:
    """Gradients of y = x + factor * (weight (scale * h) + bias) from sums over each picture.

    found: dy^T h (N, C, H), dy_sum: dy (N, C), scale: (N, H), 1 where None, all float32.
    """
    n, channels, hidden = found.shape
    gradients = Leave(*(torch.empty_like(t) for t in leave))
    launch(
        _leave_gradients_kernel, (triton.cdiv(channels, FINISHED),),
        found, dy_sum, found if scale is None else scale, *leave, *gradients, channels, hidden, dy_sum.stride(0),
        N=n, BLOCK_C=FINISHED, BLOCK_H=block(hidden), SCALED=scale is not None,
    )  # fmt: skip
    return gradients
