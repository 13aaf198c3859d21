"""1x1 weights into which is multiplied what is the same for all pixels of a picture, so that kernels need not.

Before a convolution that is normalisation's gain and offset with FiLM, W (hat * gain + offset) + b, after it the factor
of a residual, factor * (W (scale * h) + b), with the scale that comes from channel attention. The weights are padded
with zeros to whole blocks, so that they are loaded without masks at distances the compiler knows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch_triton import launch
from .rounded_triton import rounded

__all__ = ["Folded", "Leave", "Norm", "affine", "block", "fold_leaves", "fold_norms"]

STEP = 32  # rows of weights that a program folds


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
    """Weights and biases for each picture, padded."""

    weight: Tensor  # before: (N, 2, H padded, C padded), after: (N, C padded, H padded)
    bias: Tensor  # float32, (N, 2, H padded) or (N, C padded)


@triton.jit
def affine(weight_ptr, bias_ptr, film_ptr, n, c, C, FILM: tl.constexpr):
    """Gain and offset of normalisation and FiLM for channels c of picture n, in the shape of c."""
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
    """Both with gain and offset for each of n pictures; the halves of their outputs are padded to `padded` each."""
    outputs, channels = first.weight.shape[:2]
    block_c = block(channels)
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
    """Both with their factors, the first also with the scale (N, H) float32; their inputs are padded to `padded`."""
    n, hidden = scale.shape
    channels = first.weight.shape[0]
    block_c = block(channels)
    to = first.weight.new_empty((2, n, block_c, padded))
    to_bias = first.weight.new_empty((2, n, block_c), dtype=torch.float32)
    launch(
        _fold_leaves_kernel, (triton.cdiv(block_c, STEP), n, 2),
        *first, scale, *second, to, to_bias, channels, hidden,
        STEP=STEP, PADDED=padded, BLOCK_C=block_c, BLOCK_H=triton.next_power_of_2(padded),
    )  # fmt: skip
    return Folded(to[0], to_bias[0]), Folded(to[1], to_bias[1])


def block(channels: int) -> int:
    """Channels padded to what a matrix product takes."""
    return max(16, triton.next_power_of_2(channels))
