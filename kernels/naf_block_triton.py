"""Triton implementation of `naf_block`.

Forward: the 1x1 that enters the spatial half, with its normalisation (`pixels_triton`); the depthwise 3x3 with the gate
(`convolutions_triton`); the attention (`naf_vectors_triton`); and one kernel, `_tail_kernel`, for all that follows.
Backward: one kernel for that tail, then the same steps in reverse. Kept for the backward pass: x, the gated tensor and
two vectors per image; the rest is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .convolutions_triton import depthwise_backward, depthwise_gate, depthwise_gate_backward, products
from .naf_block import EPS, Parameters
from .naf_vectors_triton import (
    Folded,
    Leave,
    Norm,
    attention,
    attention_backward,
    fold_leaves,
    fold_norms,
    leave_gradients,
)
from .pixels_triton import denormalised, norm_gradients, norm_pointwise, norm_pointwise_backward, normalised
from .primitives_triton import block_width, column_sum, dot, launch, rounded, run_length

__all__ = ["backward", "forward"]

SUMMED = 1024  # channels x hidden channels up to which products are summed in registers: four such matrices


@triton.jit
def _spatial(x, g_ptr, out_ptr, bias_ptr, p, inside, c, H, BLOCK_H: tl.constexpr, BLOCKS: tl.constexpr):
    """What leaves the spatial half, x + W g + b, (P, BLOCK_C) float32. p, inside: (P, 1)."""
    total = tl.zeros(x.shape, tl.float32)
    for i in range(BLOCKS):
        h = i * BLOCK_H + tl.arange(0, BLOCK_H)
        g = tl.load(g_ptr + (p * H + h[None, :]), inside & (h[None, :] < H), 0.0)
        total += dot(g, tl.load(out_ptr + c * (BLOCKS * BLOCK_H) + h[:, None]))
    return x + total + tl.load(bias_ptr + c)


@triton.jit
def _factor(hat, w_ptr, b_ptr, h, BLOCK_C: tl.constexpr):
    """A factor of the gate, W hat + b for the outputs h (BLOCK_H,), (P, BLOCK_H) float32."""
    w = tl.load(w_ptr + h[None, :] * BLOCK_C + tl.arange(0, BLOCK_C)[:, None])
    return dot(hat, w) + tl.load(b_ptr + h)[None, :]


@triton.jit
def _tail_kernel(
    x_ptr, g_ptr, out_ptr, out_bias_ptr, w_ptr, b_ptr, leave_ptr, leave_bias_ptr, y_ptr, pixels, C, H,
    P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCKS: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    PADDED: tl.constexpr = BLOCKS * BLOCK_H
    n, first = tl.program_id(1), tl.program_id(0) * P
    at = n.to(tl.int64) * pixels + first
    p, c = tl.arange(0, P)[:, None], tl.arange(0, BLOCK_C)[None, :]
    inside = p < pixels - first
    live = inside & (c < C)
    out_ptr += n * BLOCK_C * PADDED
    w_ptr += n * 2 * PADDED * BLOCK_C
    b_ptr += n * 2 * PADDED
    leave_ptr += n * BLOCK_C * PADDED
    x = tl.load(x_ptr + at * C + (p * C + c), live, 0.0).to(tl.float32)
    x = _spatial(x, g_ptr + at * H, out_ptr, out_bias_ptr, p, inside, c, H, BLOCK_H, BLOCKS)
    hat, _ = normalised(x, live, C, EPS)
    hat = rounded(hat, x_ptr.dtype.element_ty)
    total = tl.zeros((P, BLOCK_C), tl.float32)
    for i in range(BLOCKS):
        h = i * BLOCK_H + tl.arange(0, BLOCK_H)
        k = _factor(hat, w_ptr, b_ptr, h, BLOCK_C) * _factor(hat, w_ptr, b_ptr, PADDED + h, BLOCK_C)
        total += dot(rounded(k, x_ptr.dtype.element_ty), tl.load(leave_ptr + c * PADDED + h[:, None]))
    y = x + total + tl.load(leave_bias_ptr + c)
    tl.store(y_ptr + at * C + (p * C + c), rounded(y, y_ptr.dtype.element_ty), live)


@triton.jit
def _tail_backward_kernel(
    dy_ptr, x_ptr, g_ptr, out_ptr, out_bias_ptr, w_ptr, b_ptr, leave_ptr,
    dx_ptr, dg_ptr, hat_ptr, k_ptr, dw_ptr, sums_ptr, products_ptr, pixels, C, H,
    P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCKS: tl.constexpr, TILES: tl.constexpr,
    EPS: tl.constexpr, SUMMED: tl.constexpr,
):  # fmt: skip
    # SUMMED: all hidden channels are one block, and the products that make the gradients of the weights are summed over
    # TILES tiles. Else their factors are stored.
    PADDED: tl.constexpr = BLOCKS * BLOCK_H
    n, p, c = tl.program_id(1), tl.arange(0, P)[:, None], tl.arange(0, BLOCK_C)[None, :]
    k_row = tl.arange(0, BLOCK_C)[:, None]
    program = n.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    out_ptr += n * BLOCK_C * PADDED
    w_ptr += n * 2 * PADDED * BLOCK_C
    b_ptr += n * 2 * PADDED
    leave_ptr += n * BLOCK_C * PADDED
    if SUMMED:
        dy_k, dx_g = tl.zeros((BLOCK_C, BLOCK_H), tl.float32), tl.zeros((BLOCK_C, BLOCK_H), tl.float32)
        da_hat, db_hat = tl.zeros((BLOCK_H, BLOCK_C), tl.float32), tl.zeros((BLOCK_H, BLOCK_C), tl.float32)
    for t in range(TILES):
        tile = tl.program_id(0) * TILES + t
        at = n.to(tl.int64) * pixels + tile * P
        inside = p < pixels - tile * P
        live = inside & (c < C)
        to = sums_ptr + (program * TILES + t) * 2 * (C + H)
        x = tl.load(x_ptr + at * C + (p * C + c), live, 0.0).to(tl.float32)
        x = _spatial(x, g_ptr + at * H, out_ptr, out_bias_ptr, p, inside, c, H, BLOCK_H, BLOCKS)
        hat, inverse = normalised(x, live, C, EPS)
        hat = rounded(hat, x_ptr.dtype.element_ty)
        dy = tl.load(dy_ptr + at * C + (p * C + c), live, 0.0)
        dhat = tl.zeros((P, BLOCK_C), tl.float32)
        for i in range(BLOCKS):
            h = i * BLOCK_H + tl.arange(0, BLOCK_H)
            row, column = h[:, None], h[None, :]
            a, b = _factor(hat, w_ptr, b_ptr, h, BLOCK_C), _factor(hat, w_ptr, b_ptr, PADDED + h, BLOCK_C)
            dk = dot(dy, tl.load(leave_ptr + k_row * PADDED + column))
            k = rounded(a * b, x_ptr.dtype.element_ty)
            da, db = dk * b, dk * a
            tl.store(to + 2 * C + column, column_sum(da), column < H)
            tl.store(to + 2 * C + H + column, column_sum(db), column < H)
            da, db = rounded(da, x_ptr.dtype.element_ty), rounded(db, x_ptr.dtype.element_ty)
            dhat += dot(da, tl.load(w_ptr + row * BLOCK_C + c))
            dhat += dot(db, tl.load(w_ptr + (PADDED + row) * BLOCK_C + c))
            if SUMMED:
                dy_k += dot(tl.trans(dy), k)
                da_hat += dot(tl.trans(da), hat)
                db_hat += dot(tl.trans(db), hat)
            else:
                tl.store(k_ptr + at * H + (p * H + column), k, inside & (column < H))
                tl.store(dw_ptr + at * 2 * H + (p * 2 * H + column), da, inside & (column < H))
                tl.store(dw_ptr + at * 2 * H + H + (p * 2 * H + column), db, inside & (column < H))
        if not SUMMED:
            tl.store(hat_ptr + at * C + (p * C + c), hat, live)
        # dy is read again: keeping it would take registers from the products.
        dy = tl.load(dy_ptr + at * C + (p * C + c), live, 0.0).to(tl.float32)
        dx = dy + denormalised(dhat, hat.to(tl.float32), inverse, C)
        tl.store(to + c, column_sum(dy), c < C)
        tl.store(to + C + c, column_sum(dx), c < C)
        dx = rounded(dx, x_ptr.dtype.element_ty)
        tl.store(dx_ptr + at * C + (p * C + c), dx, live)
        for i in range(BLOCKS):
            h = i * BLOCK_H + tl.arange(0, BLOCK_H)[None, :]
            dg = dot(dx, tl.load(out_ptr + k_row * PADDED + h))
            tl.store(dg_ptr + at * H + (p * H + h), rounded(dg, dg_ptr.dtype.element_ty), inside & (h < H))
            if SUMMED:
                dx_g += dot(tl.trans(dx), tl.load(g_ptr + at * H + (p * H + h), inside & (h < H), 0.0))
    if SUMMED:
        to = products_ptr + program * 4 * C * H
        h, row = tl.arange(0, BLOCK_H)[None, :], tl.arange(0, BLOCK_H)[:, None]
        tl.store(to + k_row * H + h, dy_k, (k_row < C) & (h < H))
        tl.store(to + C * H + k_row * H + h, dx_g, (k_row < C) & (h < H))
        tl.store(to + 2 * C * H + row * C + c, da_hat, (row < H) & (c < C))
        tl.store(to + 3 * C * H + row * C + c, db_hat, (row < H) & (c < C))


def forward(x: Tensor, film: Tensor | None, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The block's output and the gated tensor, both channels_last; mean and scale of the latter, (N, H) float32."""
    x, film, p = _dense(x, film, parameters)
    (n, channels, height, width), hidden = x.shape, p.attention_bias.shape[0]
    rows = 128 if channels <= 64 else 64
    rows, block_h, warps = (rows, 32, 8) if x.dtype.itemsize == 2 else (32, 16, 4)
    padded = _padded(hidden)
    spatial_in, point_in = fold_norms(*_norms(film, p), n, padded)
    h = norm_pointwise(x, spatial_in, hidden)
    gated, sums = depthwise_gate(h, p.depthwise_weight, p.depthwise_bias)
    mean, scale = attention(sums, height * width, p.attention_weight, p.attention_bias)
    spatial_leave, point_leave = _leaves(p)
    spatial_out, point_out = fold_leaves(spatial_leave, scale, point_leave, padded)
    y = torch.empty_like(x)
    launch(
        _tail_kernel, (triton.cdiv(height * width, rows), n),
        x, gated, *spatial_out, *point_in, *point_out, y, height * width, channels, hidden,
        P=rows, BLOCK_C=block_width(channels), BLOCK_H=block_h, BLOCKS=padded // block_h, EPS=EPS, warps=warps,
    )  # fmt: skip
    return [y, gated, mean, scale]


def backward(
    dy: Tensor, kept: Sequence[Tensor], x: Tensor, film: Tensor | None, parameters: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of x, film if there is one, and the parameters, in their order."""
    gated, mean, scale = kept
    x, film, p = _dense(x, film, parameters)
    n, channels, height, width = x.shape
    dy, hidden, spatial, point = dy.contiguous(memory_format=torch.channels_last), mean.shape[1], *_norms(film, p)
    padded = _padded(hidden)
    spatial_in, point_in = fold_norms(spatial, point, n, padded)
    spatial_leave, point_leave = _leaves(p)
    spatial_out, point_out = fold_leaves(spatial_leave, scale, point_leave, padded)
    dfilms = [] if film is None else [torch.empty_like(film)]
    dspatial, dpoint = (dfilms[0], dfilms[0][:, 2 * channels :]) if dfilms else (None, None)
    # What leaves the spatial half, and the gated tensor.
    tail = _tail_backward(dy, gated, x, spatial_out, point_in, point_out)
    point_norm = norm_gradients(tail.dw_hat, tail.dw_sum, point, dpoint)
    dpoint_leave = leave_gradients(tail.dy_k, tail.dy_sum, None, point_leave)
    dspatial_leave = leave_gradients(tail.dx_g, tail.dx_sum, scale, spatial_leave)
    dscale, dmean = attention_backward(tail.dx_g, height * width, p.attention_weight, spatial_leave)
    # The beginning of the spatial half, whose hidden tensor is computed again.
    h = norm_pointwise(x, spatial_in, hidden)
    dh = depthwise_gate_backward(tail.dg, dmean, h, p.depthwise_weight, p.depthwise_bias)
    dh, *depthwise = depthwise_backward(dh, h, p.depthwise_weight)
    dx, spatial_norm = norm_pointwise_backward(dh, tail.dx, x, spatial, spatial_in, dspatial)
    dattention = (dscale.t() @ mean).to(x.dtype).reshape(p.attention_weight.shape), dscale.sum(dim=0).to(x.dtype)
    return [dx, *dfilms, *spatial_norm, *depthwise, *dattention, *dspatial_leave, *point_norm, *dpoint_leave]


class _Tail(NamedTuple):
    """What the backward pass of the tail finds; sums and products are of each image, float32."""

    dx: Tensor  # (N, C, H, W), of what leaves the spatial half
    dg: Tensor  # (N, hidden, H, W), of the gated tensor but for what goes through the attention
    dy_sum: Tensor  # (N, C)
    dx_sum: Tensor  # (N, C)
    dw_sum: Tensor  # (N, 2 hidden), dw is the gradient of the gate's inputs
    dy_k: Tensor  # (N, C, hidden), k is the gate's result
    dx_g: Tensor  # (N, C, hidden)
    dw_hat: Tensor  # (N, 2 hidden, C)


def _tail_backward(
    dy: Tensor, gated: Tensor, x: Tensor, spatial_out: Folded, point_in: Folded, point_out: Folded
) -> _Tail:
    (n, channels, height, width), hidden, narrow = x.shape, gated.shape[1], x.dtype.itemsize == 2
    padded = point_in.weight.shape[-2]
    summed = narrow and block_width(channels) * padded <= SUMMED
    rows = 128 if channels <= 64 else 32
    rows, block_h, warps = (64, 32, 4) if summed else (rows, 16, 8) if narrow else (32, 16, 4)
    tiles = triton.cdiv(height * width, rows)
    run = run_length(tiles, n) if summed else 1
    programs = triton.cdiv(tiles, run)
    sums = x.new_empty((n, programs * run, 2 * (channels + hidden)), dtype=torch.float32)
    found = x.new_empty((n, programs, 4 * channels * hidden), dtype=torch.float32) if summed else sums
    dx, dg, hat, k, dw = torch.empty_like(x), torch.empty_like(gated), x, x, x
    if not summed:
        hat, k, dw = torch.empty_like(x), torch.empty_like(gated), x.new_empty((n, height, width, 2 * hidden))
    launch(
        _tail_backward_kernel, (programs, n),
        dy, x, gated, *spatial_out, *point_in, point_out.weight,
        dx, dg, hat, k, dw, sums, found, height * width, channels, hidden,
        P=rows, BLOCK_C=block_width(channels), BLOCK_H=block_h, BLOCKS=padded // block_h, TILES=run,
        EPS=EPS, SUMMED=summed, warps=warps,
    )  # fmt: skip
    totals = sums.sum(dim=1).split((channels, channels, 2 * hidden), dim=1)
    if summed:
        parts = found.sum(dim=1).split((channels * hidden, channels * hidden, 2 * channels * hidden), dim=1)
        dy_k, dx_g, dw_hat = (part.contiguous() for part in parts)
    else:
        dy_k, dx_g = products(dy.movedim(1, -1), k.movedim(1, -1)), products(dx.movedim(1, -1), gated.movedim(1, -1))
        dw_hat = products(dw, hat.movedim(1, -1))
    shape = (n, channels, hidden)
    return _Tail(dx, dg, *totals, dy_k.reshape(shape), dx_g.reshape(shape), dw_hat.reshape(n, 2 * hidden, channels))


def _padded(hidden: int) -> int:
    """Hidden channels in whole blocks of any kernel."""
    return triton.cdiv(hidden, 32) * 32


def _norms(film: Tensor | None, p: Parameters) -> tuple[Norm, Norm]:
    films = (None, None) if film is None else (film, film[:, film.shape[1] // 2 :])
    spatial = Norm(p.spatial_norm_weight, p.spatial_norm_bias, p.spatial_in_weight, p.spatial_in_bias, films[0])
    return spatial, Norm(p.point_norm_weight, p.point_norm_bias, p.point_in_weight, p.point_in_bias, films[1])


def _leaves(p: Parameters) -> tuple[Leave, Leave]:
    return Leave(p.spatial_out_weight, p.spatial_out_bias, p.beta), Leave(p.point_out_weight, p.point_out_bias, p.gamma)


def _dense(x: Tensor, film: Tensor | None, p: Sequence[Tensor]) -> tuple[Tensor, Tensor | None, Parameters]:
    x = x.contiguous(memory_format=torch.channels_last)
    return x, None if film is None else film.contiguous(), Parameters(*(q.contiguous() for q in p))
