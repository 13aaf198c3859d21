"""The small part of `naf_block`: weights per image, attention over channels, gradients from sums over each image.

What is the same for all pixels of an image is multiplied into the 1x1 weights, so that kernels need not do it. Before a
convolution that is the normalisation's gain and offset with FiLM, W (hat * gain + offset) + b; after it the factor of a
residual, factor * (W (scale * h) + b), with the scale from channel attention. The weights are padded with zeros to
whole blocks, so that they are loaded without masks at distances the compiler knows. Compared with the image all of this
is small, but each operation would be a launch of its own: here each step is one kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .primitives_triton import block_width, launch, rounded

__all__ = [
    "FINISHED",
    "Folded",
    "Leave",
    "Norm",
    "affine",
    "attention",
    "attention_backward",
    "fold_leaves",
    "fold_norms",
    "leave_gradients",
]

STEP = 32  # rows of weights that a program holds at a time
FINISHED = 8  # channels of a program that makes gradients from sums


class Norm(NamedTuple):
    """Layer normalisation over the channels of each pixel, FiLM, and the 1x1 convolution that follows."""

    norm_weight: Tensor  # (C,)
    norm_bias: Tensor  # (C,)
    weight: Tensor  # (2H, C, 1, 1)
    bias: Tensor  # (2H,)
    film: Tensor | None  # (N, >= 2C): scale, to which 1 is added, then shift; rows 4C apart


class Leave(NamedTuple):
    """factor * (weight h + bias)."""

    weight: Tensor  # (C, H, 1, 1)
    bias: Tensor  # (C,)
    factor: Tensor  # (C, 1, 1)


class Folded(NamedTuple):
    """Weights and biases for each image, padded."""

    weight: Tensor  # before: (N, 2, H padded, C padded), after: (N, C padded, H padded)
    bias: Tensor  # float32, (N, 2, H padded) or (N, C padded)


@triton.jit
def affine(weight_ptr, bias_ptr, film_ptr, n, c, C, FILM: tl.constexpr):
    """Gain and offset of normalisation and FiLM for channels c of image n, in the shape of c."""
    gain = tl.load(weight_ptr + c, c < C, 0.0).to(tl.float32)
    offset = tl.load(bias_ptr + c, c < C, 0.0).to(tl.float32)
    if FILM:
        scale = 1.0 + tl.load(film_ptr + n * 4 * C + c, c < C, 0.0).to(tl.float32)
        gain *= scale
        offset = offset * scale + tl.load(film_ptr + n * 4 * C + C + c, c < C, 0.0).to(tl.float32)
    return gain, offset


@triton.jit
def _fold_norms_kernel(
    norm_weight_ptr, norm_bias_ptr, w_ptr, b_ptr, film_ptr,
    second_norm_weight_ptr, second_norm_bias_ptr, second_w_ptr, second_b_ptr, second_film_ptr,
    to_ptr, to_bias_ptr, C, H, STEP: tl.constexpr, PADDED: tl.constexpr, BLOCK_C: tl.constexpr, FILM: tl.constexpr,
):  # fmt: skip
    n, second = tl.program_id(1), tl.program_id(2)
    if second == 1:
        norm_weight_ptr, norm_bias_ptr, film_ptr = second_norm_weight_ptr, second_norm_bias_ptr, second_film_ptr
        w_ptr, b_ptr = second_w_ptr, second_b_ptr
    c, row = tl.arange(0, BLOCK_C)[None, :], tl.program_id(0) * STEP + tl.arange(0, STEP)[:, None]
    h, source = row % PADDED, row // PADDED * H + row % PADDED
    gain, offset = affine(norm_weight_ptr, norm_bias_ptr, film_ptr, n, c, C, FILM)
    w = tl.load(w_ptr + source * C + c, (h < H) & (c < C), 0.0).to(tl.float32)
    bias = tl.sum(w * offset, 1, keep_dims=True) + tl.load(b_ptr + source, h < H, 0.0).to(tl.float32)
    to = (second * tl.num_programs(1) + n) * 2 * PADDED + row
    tl.store(to_ptr + to * BLOCK_C + c, rounded(w * gain, to_ptr.dtype.element_ty), row < 2 * PADDED)
    tl.store(to_bias_ptr + to, bias, row < 2 * PADDED)


@triton.jit
def _fold_leaves_kernel(
    w_ptr, b_ptr, factor_ptr, scale_ptr, second_w_ptr, second_b_ptr, second_factor_ptr, to_ptr, to_bias_ptr, C, H,
    STEP: tl.constexpr, PADDED: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    n, second = tl.program_id(1), tl.program_id(2)
    h, c = tl.arange(0, BLOCK_H)[None, :], tl.program_id(0) * STEP + tl.arange(0, STEP)[:, None]
    scale = tl.load(scale_ptr + n * H + h, h < H, 0.0)
    if second == 1:
        w_ptr, b_ptr, factor_ptr = second_w_ptr, second_b_ptr, second_factor_ptr
        scale = tl.full(scale.shape, 1.0, tl.float32)
    factor = tl.load(factor_ptr + c, c < C, 0.0).to(tl.float32)
    w = tl.load(w_ptr + c * H + h, (c < C) & (h < H), 0.0).to(tl.float32) * scale * factor
    bias = tl.load(b_ptr + c, c < C, 0.0).to(tl.float32) * factor
    to = (second * tl.num_programs(1) + n) * BLOCK_C + c
    tl.store(to_ptr + to * PADDED + h, rounded(w, to_ptr.dtype.element_ty), (c < BLOCK_C) & (h < PADDED))
    tl.store(to_bias_ptr + to, bias, c < BLOCK_C)


def fold_norms(first: Norm, second: Norm, n: int, padded: int) -> tuple[Folded, Folded]:
    """Fold gain and offset into both for each of n images; each half of their outputs is padded to `padded`."""
    outputs, channels = first.weight.shape[:2]
    block_c = block_width(channels)
    to = first.weight.new_empty((2, n, 2, padded, block_c))
    to_bias = first.weight.new_empty((2, n, 2, padded), dtype=torch.float32)
    films = (norm.weight if norm.film is None else norm.film for norm in (first, second))
    launch(
        _fold_norms_kernel, (triton.cdiv(2 * padded, STEP), n, 2),
        *first[:4], next(films), *second[:4], next(films), to, to_bias, channels, outputs // 2,
        STEP=STEP, PADDED=padded, BLOCK_C=block_c, FILM=first.film is not None,
    )  # fmt: skip
    return Folded(to[0], to_bias[0]), Folded(to[1], to_bias[1])


def fold_leaves(first: Leave, scale: Tensor, second: Leave, padded: int) -> tuple[Folded, Folded]:
    """Fold their factors into both, and the scale (N, H) float32 into the first; inputs are padded to `padded`."""
    n, hidden = scale.shape
    channels = first.weight.shape[0]
    block_c = block_width(channels)
    to = first.weight.new_empty((2, n, block_c, padded))
    to_bias = first.weight.new_empty((2, n, block_c), dtype=torch.float32)
    launch(
        _fold_leaves_kernel, (triton.cdiv(block_c, STEP), n, 2),
        *first, scale, *second, to, to_bias, channels, hidden,
        STEP=STEP, PADDED=padded, BLOCK_C=block_c, BLOCK_H=triton.next_power_of_2(padded),
    )  # fmt: skip
    return Folded(to[0], to_bias[0]), Folded(to[1], to_bias[1])


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
    """Return the mean of each image and the scale W mean + b, both (N, H) float32.

    Args:
        sums: parts of the sum over the pixels of an image, (N, strips, H) float32.
        pixels: of an image.
        weight: (H, H, 1, 1).
        bias: (H,).
    """
    n, strips, hidden = sums.shape
    mean, scale = sums.new_empty((n, hidden)), sums.new_empty((n, hidden))
    launch(
        _attention_kernel, (n,),
        sums, weight, bias, mean, scale, strips, pixels, hidden,
        BLOCK_H=block_width(hidden), STEP=STEP, STRIPS=triton.cdiv(strips, STEP), BLOCKS=triton.cdiv(hidden, STEP),
    )  # fmt: skip
    return mean, scale


def attention_backward(found: Tensor, pixels: int, weight: Tensor, leave: Leave) -> tuple[Tensor, Tensor]:
    """Return the gradients of the scale and, divided by `pixels`, of the mean, both (N, H) float32.

    Args:
        found: dy^T g (N, C, H) float32 for y = x + leave.factor * (leave.weight (scale * g) + leave.bias).
        pixels: of an image.
        weight: of the attention, (H, H, 1, 1).
        leave: the 1x1 that leaves the spatial half.
    """
    n, channels, hidden = found.shape
    dscale, dmean = found.new_empty((n, hidden)), found.new_empty((n, hidden))
    launch(
        _attention_backward_kernel, (n,),
        found, leave.weight, leave.factor, weight, dscale, dmean, pixels, channels, hidden,
        BLOCK_C=block_width(channels), BLOCK_H=block_width(hidden), STEP=STEP, BLOCKS=triton.cdiv(hidden, STEP),
    )  # fmt: skip
    return dscale, dmean


def leave_gradients(found: Tensor, dy_sum: Tensor, scale: Tensor | None, leave: Leave) -> Leave:
    """Return the gradients of `leave` in y = x + factor * (weight (scale * h) + bias) from float32 sums over images.

    Args:
        found: dy^T h, (N, C, H).
        dy_sum: dy, (N, C).
        scale: (N, H); 1 where None.
        leave: weight, bias and factor.
    """
    n, channels, hidden = found.shape
    gradients = Leave(*(torch.empty_like(t) for t in leave))
    launch(
        _leave_gradients_kernel, (triton.cdiv(channels, FINISHED),),
        found, dy_sum, found if scale is None else scale, *leave, *gradients, channels, hidden, dy_sum.stride(0),
        N=n, BLOCK_C=FINISHED, BLOCK_H=block_width(hidden), SCALED=scale is not None,
    )  # fmt: skip
    return gradients
