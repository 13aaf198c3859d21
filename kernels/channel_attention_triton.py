"""Triton implementation of `channel_attention`.

One matrix product makes `hidden` (N, H, W, 3 C): q, k and v before their 3x3. Whatever needs q, k or v computes the 3x3
of `hidden` on the fly, so that they are never written: the maps q k^T with the squared lengths, summed per run of
tiles; the output, in which attention A and the last 1x1 are one product, (W_out A) v; and in the backward pass the
gradients of W_out A and of q and k. Between them run small kernels and products of channels x channels matrices.

Traffic in S, the bytes of x, by count: forward 8 (x, hidden written; q and k of hidden; v of hidden and y), backward 29
(4 for hidden again; 2, dy and v of hidden; 2, dy and dv; 4, q and k of hidden, dq and dk; 17 in `mixed_backward`). Maps
and their partial sums come on top. Kept for the backward pass: x and the maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .channel_attention import SMALLEST
from .convolutions_triton import COLUMNS, convolved, mixed, mixed_backward, pixel, products, tile_count
from .primitives_triton import block_width, dot, launch, rounded, run_length

__all__ = ["backward", "forward"]

R = 16  # rows of a map that a program holds at a time
PART = 16  # channels that products of float32 go over at a time: they keep both factors in registers


@triton.jit
def _maps_kernel(
    hidden_ptr, taps_ptr, sums_ptr, height, width, C, size,
    TILES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums (N, runs, heads, size + 2, size) of a head: q k^T, then the squares of q, then those of k."""
    n, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    stride = 3 * C
    c = tl.arange(0, BLOCK)[None, :]
    live = c < size
    taps = taps_ptr + head * size
    product = tl.zeros((BLOCK, BLOCK), tl.float32)
    q_squares, k_squares = tl.zeros((1, BLOCK), tl.float32), tl.zeros((1, BLOCK), tl.float32)
    for i in range(TILES):
        top, left, y, x = pixel(tl.program_id(0) * TILES + i, width, ROWS, COLUMNS)
        corner = hidden_ptr + ((n * height + top) * width + left) * stride + head * size
        q = convolved(corner, taps, top, left, y, x, c, live, height, width, stride)
        k = convolved(corner + C, taps + C, top, left, y, x, c, live, height, width, stride)
        q, k = rounded(q, hidden_ptr.dtype.element_ty), rounded(k, hidden_ptr.dtype.element_ty)
        product += dot(tl.trans(q), k)
        q_squares += tl.sum(q.to(tl.float32) * q.to(tl.float32), axis=0, keep_dims=True)
        k_squares += tl.sum(k.to(tl.float32) * k.to(tl.float32), axis=0, keep_dims=True)
    to = sums_ptr + ((n * tl.num_programs(0) + tl.program_id(0)) * tl.num_programs(1) + head) * (size + 2) * size + c
    row = tl.arange(0, BLOCK)[:, None]
    tl.store(to + row * size, product, (row < size) & live)
    tl.store(to + size * size, q_squares, live)
    tl.store(to + (size + 1) * size, k_squares, live)


@triton.jit
def _attention(statistics_ptr, temperature, i, size, SMALLEST: tl.constexpr, BLOCK: tl.constexpr):
    """Rows i (R, 1) of a head: weights, cosines and products of lengths (R, BLOCK), and the lengths of q and k."""
    j = tl.arange(0, BLOCK)[None, :]
    q_length = tl.sqrt(tl.load(statistics_ptr + size * size + i, i < size, 0.0))
    k_length = tl.sqrt(tl.load(statistics_ptr + (size + 1) * size + j, j < size, 0.0))
    lengths = q_length * k_length
    cosine = tl.load(statistics_ptr + i * size + j, (i < size) & (j < size), 0.0) / tl.maximum(lengths, SMALLEST)
    score = tl.where(j < size, cosine * temperature, float("-inf"))
    power = tl.exp(score - tl.max(score, axis=1, keep_dims=True))
    return power / tl.sum(power, axis=1, keep_dims=True), cosine, lengths, q_length, k_length


@triton.jit
def _weights_kernel(
    statistics_ptr, temperature_ptr, weights_ptr, size, SMALLEST: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Turn statistics (N, heads, size + 2, size) into weights (N, heads, size, size)."""
    head, at = tl.program_id(1), tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    i, j = tl.program_id(0) * R + tl.arange(0, R)[:, None], tl.arange(0, BLOCK)[None, :]
    temperature = tl.load(temperature_ptr + head).to(tl.float32)
    weights, _, _, _, _ = _attention(statistics_ptr + at * (size + 2) * size, temperature, i, size, SMALLEST, BLOCK)
    to = weights_ptr + (at * size + i) * size + j
    tl.store(to, rounded(weights, weights_ptr.dtype.element_ty), (i < size) & (j < size))


@triton.jit
def _apply_kernel(
    hidden_ptr, taps_ptr, map_ptr, y_ptr, height, width, C,
    INPUTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr,
):  # fmt: skip
    """Compute y = v map^T, with map (N, C, C) and v the last third of the convolved hidden."""
    n, blocks = tl.program_id(1).to(tl.int64), tl.cdiv(C, BLOCK_OUT)
    stride = 3 * C
    top, left, y, x = pixel(tl.program_id(0) // blocks, width, ROWS, COLUMNS)
    corner = (n * height + top) * width + left
    o = tl.program_id(0) % blocks * BLOCK_OUT + tl.arange(0, BLOCK_OUT)[None, :]
    c = tl.arange(0, BLOCK_IN)[None, :]
    total = tl.zeros((ROWS * COLUMNS, BLOCK_OUT), tl.float32)
    for first in range(0, INPUTS, BLOCK_IN):
        v_corner, v_taps = hidden_ptr + corner * stride + 2 * C + first, taps_ptr + 2 * C + first
        v = convolved(v_corner, v_taps, top, left, y, x, c, first + c < C, height, width, stride)
        row = first + tl.arange(0, BLOCK_IN)[:, None]
        by = tl.load(map_ptr + n * C * C + o * C + row, (row < C) & (o < C), 0.0)
        total += dot(rounded(v, hidden_ptr.dtype.element_ty), by)
    inside = (top + y < height) & (left + x < width) & (o < C)
    tl.store(y_ptr + (corner + y * width + x) * C + o, rounded(total, y_ptr.dtype.element_ty), inside)


@triton.jit
def _power_below(length, SHORTEST: tl.constexpr):
    """The power of two next below: scaling with it rounds nothing."""
    bits = tl.maximum(length, SHORTEST).to(tl.int32, bitcast=True)
    return (bits & 0x7F800000).to(tl.float32, bitcast=True)


@triton.jit
def _weights_backward_kernel(
    statistics_ptr, temperature_ptr, dweights_ptr, dmap_ptr, scales_ptr, dtemperature_ptr, size, C,
    SMALLEST: tl.constexpr, SHORTEST: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the weights (N, heads, size, size) -> D of the same shape, and scales r, s, a and b, (N, 4, C).

    With them dq = r (D (s k)) + a q and dk = s (D^T (r q)) + b k. r and s are about the inverse lengths, so that D is
    about the gradient of the cosines: half precision holds all factors. a and b are what the lengths get.
    """
    head, n = tl.program_id(0), tl.program_id(1)
    at = n * tl.num_programs(0) + head
    temperature = tl.load(temperature_ptr + head).to(tl.float32)
    statistics_ptr += at * (size + 2) * size
    scales_ptr += n * 4 * C + head * size
    j = tl.arange(0, BLOCK)[None, :]
    k_length = tl.sqrt(tl.load(statistics_ptr + (size + 1) * size + j, j < size, 0.0))
    k_power = _power_below(k_length, SHORTEST)
    dtemperature = tl.zeros((1, BLOCK), tl.float32)
    dk_length = tl.zeros((1, BLOCK), tl.float32)
    for first in range(0, BLOCK, R):
        i = first + tl.arange(0, R)[:, None]
        live = (i < size) & (j < size)
        weights, cosine, lengths, q_length, _ = _attention(statistics_ptr, temperature, i, size, SMALLEST, BLOCK)
        dweights = tl.load(dweights_ptr + (at * size + i) * size + j, live, 0.0)
        dscore = weights * (dweights - tl.sum(dweights * weights, axis=1, keep_dims=True))
        # Both factors are centred, so that what rounding adds to either mean cancels.
        centred = cosine - tl.sum(weights * cosine, axis=1, keep_dims=True)
        dtemperature += tl.sum(tl.where(live, dscore * centred, 0.0), axis=0, keep_dims=True)
        q_power = _power_below(q_length, SHORTEST)
        dmap = dscore * temperature * (q_power * k_power / tl.maximum(lengths, SMALLEST))
        dmap = rounded(tl.where(live, dmap, 0.0), dmap_ptr.dtype.element_ty)
        tl.store(dmap_ptr + (at * size + i) * size + j, dmap, live)
        # From the rounded map, because what is parallel to q and k cancels; 0 where the lengths are clamped.
        dlengths = tl.where(lengths >= SMALLEST, -dmap.to(tl.float32) * cosine / (q_power * k_power), 0.0)
        dq_length = tl.sum(dlengths * k_length, axis=1, keep_dims=True)
        dk_length += tl.sum(dlengths * q_length, axis=0, keep_dims=True)
        tl.store(scales_ptr + i, 1 / q_power, i < size)
        tl.store(scales_ptr + 2 * C + i, dq_length / tl.where(q_length > 0, q_length, 1.0), i < size)
    tl.store(scales_ptr + C + j, 1 / k_power, j < size)
    tl.store(scales_ptr + 3 * C + j, dk_length / tl.where(k_length > 0, k_length, 1.0), j < size)
    tl.store(dtemperature_ptr + at, tl.sum(dtemperature))


@triton.jit
def _map_products(
    corner_ptr, taps_ptr, dmap_ptr, scales_ptr, first, top, left, y, x, height, width, C, size,
    BLOCK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Of a tile, for PART channels of the head from `first`: r q and s k, and what they add to D (s k), D^T (r q)."""
    stride = 3 * C
    part, i, c = first + tl.arange(0, PART)[None, :], first + tl.arange(0, PART)[:, None], tl.arange(0, BLOCK)[None, :]
    live = part < size
    q = convolved(corner_ptr, taps_ptr, top, left, y, x, part, live, height, width, stride)
    k = convolved(corner_ptr + C, taps_ptr + C, top, left, y, x, part, live, height, width, stride)
    # Rounded as in the forward pass: the scales are powers of two.
    q = rounded(q * tl.load(scales_ptr + part, live, 1.0), corner_ptr.dtype.element_ty)
    k = rounded(k * tl.load(scales_ptr + C + part, live, 1.0), corner_ptr.dtype.element_ty)
    forth = tl.load(dmap_ptr + i * size + c, (i < size) & (c < size), 0.0)
    back = tl.load(dmap_ptr + c * size + i, (i < size) & (c < size), 0.0)
    return q, k, dot(k, back), dot(q, forth)


@triton.jit
def _maps_backward_kernel(
    hidden_ptr, taps_ptr, dmap_ptr, scales_ptr, dmixed_ptr, height, width, C, size,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Gradients of q and k, the first two thirds of dmixed (N, H, W, 3 C), from what `_weights_backward_kernel` wrote.

    Where PART is less than BLOCK, the products go over parts of the channels, whose 3x3 is then taken twice.
    """
    n, heads = tl.program_id(1).to(tl.int64), C // size
    head = tl.program_id(0) % heads
    stride = 3 * C
    top, left, y, x = pixel(tl.program_id(0) // heads, width, ROWS, COLUMNS)
    at = ((n * height + top) * width + left) * stride + head * size
    corner, taps = hidden_ptr + at, taps_ptr + head * size
    dmap_ptr += (n * heads + head) * size * size
    scales_ptr += n * 4 * C + head * size
    c = tl.arange(0, BLOCK)[None, :]
    live = c < size
    q_scale, k_scale = tl.load(scales_ptr + c, live, 1.0), tl.load(scales_ptr + C + c, live, 1.0)
    if PART == BLOCK:
        q, k, dq, dk = _map_products(
            corner, taps, dmap_ptr, scales_ptr, 0, top, left, y, x, height, width, C, size, BLOCK, PART
        )
        q, k = q.to(tl.float32) / q_scale, k.to(tl.float32) / k_scale
    else:
        dq = tl.zeros((ROWS * COLUMNS, BLOCK), tl.float32)
        dk = tl.zeros((ROWS * COLUMNS, BLOCK), tl.float32)
        for first in range(0, BLOCK, PART):
            _, _, more_q, more_k = _map_products(
                corner, taps, dmap_ptr, scales_ptr, first, top, left, y, x, height, width, C, size, BLOCK, PART
            )
            dq += more_q
            dk += more_k
        q = convolved(corner, taps, top, left, y, x, c, live, height, width, stride)
        k = convolved(corner + C, taps + C, top, left, y, x, c, live, height, width, stride)
    dq = dq * q_scale + q * tl.load(scales_ptr + 2 * C + c, live, 0.0)
    dk = dk * k_scale + k * tl.load(scales_ptr + 3 * C + c, live, 0.0)
    inside = (top + y < height) & (left + x < width) & live
    to = dmixed_ptr + at + (y * width + x) * stride + c
    tl.store(to, rounded(dq, dmixed_ptr.dtype.element_ty), inside)
    tl.store(to + C, rounded(dk, dmixed_ptr.dtype.element_ty), inside)


def forward(x: Tensor, *others: Any) -> list[Tensor]:
    """Output, channels_last, and statistics (N, heads, c + 2, c): q k^T and the squared lengths of q and of k."""
    *mixes, temperature, out, heads = others
    x = x.contiguous(memory_format=torch.channels_last)
    n, channels, height, width = x.shape
    hidden, taps = mixed(x, mixes)
    statistics = _statistics(hidden, taps, heads)
    onto = _onto(out, _weights(statistics, temperature))
    y = torch.empty_like(x, memory_format=torch.channels_last)
    exact = x.dtype == torch.float32
    rows, part, widest = (2, PART, 64) if exact else (4, 32, 128)
    block = max(part, min(triton.next_power_of_2(channels), widest))
    launch(
        _apply_kernel, (tile_count(height, width, rows) * triton.cdiv(channels, block), n),
        hidden, taps, onto, y, height, width, channels,
        INPUTS=channels, ROWS=rows, COLUMNS=COLUMNS, BLOCK_IN=part, BLOCK_OUT=block,
        warps=8 if exact or block > 64 else 4,
    )  # fmt: skip
    return [y, statistics]


def backward(dy: Tensor, kept: Sequence[Tensor], x: Tensor, *others: Any) -> list[Tensor]:
    """Gradients of x, of the 1x1 and 3x3 of q, k and v, of temperature and out."""
    (statistics,) = kept
    *mixes, temperature, out, heads = others
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    n, channels, height, width = x.shape
    size, block = channels // heads, block_width(channels // heads)
    hidden, taps = mixed(x, mixes)
    weights = _weights(statistics, temperature)
    onto = _onto(out, weights)
    # Of W_out A, and so of both.
    donto = products(dy.movedim(1, 3), hidden[..., 2 * channels :], taps[:, 2 * channels :])  # (N, C, C) float32
    donto = donto.view(n, channels, heads, size).transpose(1, 2)  # (N, heads, C, c)
    dout = (donto @ weights.float().mT).sum(dim=0).transpose(0, 1).reshape(out.shape)
    dweights = (_by_head(out, heads).float().mT @ donto).contiguous()  # (N, heads, c, c)
    # Of q, k and v.
    dmap = x.new_empty(dweights.shape)
    scales = x.new_empty((n, 4, channels), dtype=torch.float32)
    dtemperature = x.new_empty((n, heads), dtype=torch.float32)
    launch(
        _weights_backward_kernel, (heads, n),
        statistics, temperature.contiguous(), dweights, dmap, scales, dtemperature, size, channels,
        SMALLEST=SMALLEST, SHORTEST=math.sqrt(SMALLEST), R=R, BLOCK=block, warps=8,
    )  # fmt: skip
    dmixed = torch.empty_like(hidden)
    rows, part = (1, PART) if x.dtype == torch.float32 else (2, block)
    launch(
        _maps_backward_kernel, (tile_count(height, width, rows) * heads, n),
        hidden, taps, dmap, scales, dmixed, height, width, channels, size,
        ROWS=rows, COLUMNS=COLUMNS, BLOCK=block, PART=part,
        warps=8 if block > 32 else 4,
    )  # fmt: skip
    pixels = height * width
    torch.bmm(
        dy.movedim(1, 3).view(n, pixels, channels), onto,
        out=dmixed.view(n, pixels, 3 * channels)[..., 2 * channels :],
    )  # fmt: skip
    dtemperature = dtemperature.sum(dim=0).to(x.dtype).view(temperature.shape)
    return [*mixed_backward(dmixed, hidden, x, mixes), dtemperature, dout.to(x.dtype)]


def _by_head(out: Tensor, heads: int) -> Tensor:
    """The last 1x1 by the head that it reads: (heads, C, c)."""
    return out.reshape(out.shape[0], heads, -1).transpose(0, 1)


def _onto(out: Tensor, weights: Tensor) -> Tensor:
    """Attention and the last 1x1 as one matrix for each image, (N, C, C)."""
    n, heads = weights.shape[:2]
    onto = (_by_head(out, heads) @ weights).transpose(1, 2)
    return onto.reshape(n, out.shape[0], out.shape[1]).contiguous()  # a view of it where heads are one channel wide


def _statistics(hidden: Tensor, taps: Tensor, heads: int) -> Tensor:
    n, height, width, channels = hidden.shape
    size = channels // (3 * heads)
    block = block_width(size)
    rows = 4 // (1 + (block > 64)) // (1 + (hidden.dtype == torch.float32))
    tiles = tile_count(height, width, rows)
    run = run_length(tiles, heads * n)
    sums = hidden.new_empty((n, triton.cdiv(tiles, run), heads, size + 2, size), dtype=torch.float32)
    launch(
        _maps_kernel, (sums.shape[1], heads, n),
        hidden, taps, sums, height, width, channels // 3, size,
        TILES=run, ROWS=rows, COLUMNS=COLUMNS, BLOCK=block, warps=8 if block > 32 else 4,
    )  # fmt: skip
    return sums.sum(dim=1)


def _weights(statistics: Tensor, temperature: Tensor) -> Tensor:
    """Attention (N, heads, c, c) in the dtype of temperature."""
    n, heads, _, size = statistics.shape
    weights = temperature.new_empty((n, heads, size, size))
    block = block_width(size)
    launch(
        _weights_kernel, (triton.cdiv(size, R), heads, n),
        statistics, temperature.contiguous(), weights, size,
        SMALLEST=SMALLEST, R=R, BLOCK=block,
    )  # fmt: skip
    return weights
