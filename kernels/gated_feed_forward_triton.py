"""Triton implementation of `gated_feed_forward`.

One matrix product makes `hidden` (N, H, W, 2 E): gate and value before their 3x3. Where all C channels fit into one
program, one kernel does the 3x3, the gate and the last 1x1, and one computes the gradients of gate, value and the last
1x1 in the backward pass: gated values are then never written. With more channels they are, for a plain matrix product.

Traffic in S, the bytes of x, by count, for E = 2 C: forward 10 (x, hidden written; hidden and y), backward 36 (5 for
hidden again; 9, hidden, dy and the gradients of gate and value; 22 in `mixed_backward`). Where C is too wide, 14 and
45. Kept for the backward pass: x.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .convolutions_triton import COLUMNS, convolved, mixed, mixed_backward, pixel, products, tile_count
from .primitives_triton import block_width, dot, launch, rounded, run_length

__all__ = ["backward", "forward"]

BLOCK_E = 32  # hidden channels that a program holds at a time


@triton.jit
def _gate_and_value(
    hidden_ptr, taps_ptr, corner, first, top, left, y, x, height, width, E, BLOCK_E: tl.constexpr
):  # fmt: skip
    """Of a tile the hidden channels first to first + BLOCK_E: gate, value and the gate's normal distribution."""
    e = tl.arange(0, BLOCK_E)[None, :]
    corner_ptr, taps_ptr, live = hidden_ptr + corner * (2 * E) + first, taps_ptr + first, first + e < E
    gate = convolved(corner_ptr, taps_ptr, top, left, y, x, e, live, height, width, 2 * E)
    value = convolved(corner_ptr + E, taps_ptr + E, top, left, y, x, e, live, height, width, 2 * E)
    return gate, value, 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)


@triton.jit
def _leave_kernel(
    hidden_ptr, taps_ptr, leave_ptr, y_ptr, height, width, C, E,
    HIDDEN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Compute y = gated leave^T, with leave (C, E)."""
    n = tl.program_id(1).to(tl.int64)
    top, left, y, x = pixel(tl.program_id(0), width, ROWS, COLUMNS)
    corner = (n * height + top) * width + left
    c = tl.arange(0, BLOCK_C)[None, :]
    total = tl.zeros((ROWS * COLUMNS, BLOCK_C), tl.float32)
    for first in range(0, HIDDEN, BLOCK_E):
        gate, value, share = _gate_and_value(
            hidden_ptr, taps_ptr, corner, first, top, left, y, x, height, width, E, BLOCK_E
        )
        e = first + tl.arange(0, BLOCK_E)[:, None]
        by = tl.load(leave_ptr + c * E + e, (c < C) & (e < E), 0.0)
        total += dot(rounded(gate * share * value, hidden_ptr.dtype.element_ty), by)
    inside = (top + y < height) & (left + x < width) & (c < C)
    tl.store(y_ptr + (corner + y * width + x) * C + c, rounded(total, y_ptr.dtype.element_ty), inside)


@triton.jit
def _gate_kernel(
    hidden_ptr, taps_ptr, gated_ptr, height, width, E,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Compute gated = gelu(gate) value, (N, H, W, E)."""
    n, blocks = tl.program_id(1).to(tl.int64), tl.cdiv(E, BLOCK_E)
    top, left, y, x = pixel(tl.program_id(0) // blocks, width, ROWS, COLUMNS)
    corner, first = (n * height + top) * width + left, tl.program_id(0) % blocks * BLOCK_E
    gate, value, share = _gate_and_value(
        hidden_ptr, taps_ptr, corner, first, top, left, y, x, height, width, E, BLOCK_E
    )
    e = first + tl.arange(0, BLOCK_E)[None, :]
    inside = (top + y < height) & (left + x < width) & (e < E)
    to = gated_ptr + (corner + y * width + x) * E + e
    tl.store(to, rounded(gate * share * value, gated_ptr.dtype.element_ty), inside)


@triton.jit
def _gate_backward_kernel(
    dy_ptr, hidden_ptr, taps_ptr, leave_ptr, gated_ptr, dmixed_ptr, sums_ptr, height, width, C, E,
    TILES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_E: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """Gradients of gate and value, dmixed (N, H, W, 2 E), for BLOCK_E hidden channels and TILES tiles.

    WHOLE: dy is that of the output, and the gradient of leave is summed, sums (N, runs, C, E). Otherwise dy is that of
    gated, which is written.
    """
    n, blocks = tl.program_id(1).to(tl.int64), tl.cdiv(E, BLOCK_E)
    run, first = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK_E
    c, e = tl.arange(0, BLOCK_C), first + tl.arange(0, BLOCK_E)[None, :]
    leave = tl.load(leave_ptr + c[:, None] * E + e, (c[:, None] < C) & (e < E), 0.0)
    total = tl.zeros((BLOCK_C, BLOCK_E), tl.float32)
    for i in range(TILES):
        top, left, y, x = pixel(run * TILES + i, width, ROWS, COLUMNS)
        corner = (n * height + top) * width + left
        inside = (top + y < height) & (left + x < width)
        gate, value, share = _gate_and_value(
            hidden_ptr, taps_ptr, corner, first, top, left, y, x, height, width, E, BLOCK_E
        )
        gated = rounded(gate * share * value, hidden_ptr.dtype.element_ty)
        if WHOLE:
            dy = tl.load(dy_ptr + (corner + y * width + x) * C + c[None, :], inside & (c[None, :] < C), 0.0)
            total += dot(tl.trans(dy), gated)
            dgated = dot(dy, leave)
        else:
            at = (corner + y * width + x) * E + e
            dgated = tl.load(dy_ptr + at, inside & (e < E), 0.0).to(tl.float32)
            tl.store(gated_ptr + at, gated, inside & (e < E))
        density = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
        to = dmixed_ptr + (corner + y * width + x) * (2 * E) + e
        dgate = dgated * value * (share + gate * density)
        tl.store(to, rounded(dgate, dmixed_ptr.dtype.element_ty), inside & (e < E))
        tl.store(to + E, rounded(dgated * gate * share, dmixed_ptr.dtype.element_ty), inside & (e < E))
    if WHOLE:
        runs = tl.num_programs(0) // blocks
        tl.store(sums_ptr + ((n * runs + run) * C + c[:, None]) * E + e, total, (c[:, None] < C) & (e < E))


def forward(x: Tensor, *weights: Tensor) -> list[Tensor]:
    """As `gated_feed_forward`; the result is channels_last."""
    x = x.contiguous(memory_format=torch.channels_last)
    n, channels, height, width = x.shape
    hidden, taps = mixed(x, weights[:-1])
    by, size = weights[-1].flatten(1).contiguous(), weights[-1].shape[1]
    y = torch.empty_like(x, memory_format=torch.channels_last)
    rows = _rows(x)
    if _whole(x):
        block = block_width(channels)
        launch(
            _leave_kernel, (tile_count(height, width, rows), n),
            hidden, taps, by, y, height, width, channels, size,
            HIDDEN=size, ROWS=rows, COLUMNS=COLUMNS, BLOCK_C=block, BLOCK_E=32 * 2 // x.itemsize, warps=8,
        )  # fmt: skip
        return [y]
    gated = x.new_empty((n, height, width, size))
    launch(
        _gate_kernel, (tile_count(height, width, rows) * triton.cdiv(size, BLOCK_E), n),
        hidden, taps, gated, height, width, size,
        ROWS=rows, COLUMNS=COLUMNS, BLOCK_E=BLOCK_E,
    )  # fmt: skip
    torch.mm(gated.view(-1, size), by.t(), out=y.movedim(1, 3).view(-1, channels))
    return [y]


def backward(dy: Tensor, _kept: Sequence[Tensor], x: Tensor, *weights: Tensor) -> list[Tensor]:
    """Gradients of x and all weights."""
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    n, channels, height, width = x.shape
    hidden, taps = mixed(x, weights[:-1])
    by, size = weights[-1].flatten(1).contiguous(), weights[-1].shape[1]
    dmixed = torch.empty_like(hidden)
    rows, blocks, whole = _rows(x), triton.cdiv(size, BLOCK_E), _whole(x)
    tiles = tile_count(height, width, rows)
    run = run_length(tiles, blocks * n) if whole else 1
    runs = triton.cdiv(tiles, run)
    dy_pixels = dy.movedim(1, 3)
    if whole:
        gated, dgated = x, dy
        sums = x.new_empty((n, runs, channels, size), dtype=torch.float32)
    else:
        dgated = dy_pixels @ by
        gated = torch.empty_like(dgated)
        sums = x
    launch(
        _gate_backward_kernel, (runs * blocks, n),
        dgated, hidden, taps, by, gated, dmixed, sums, height, width, channels, size,
        TILES=run, ROWS=rows, COLUMNS=COLUMNS, BLOCK_C=block_width(channels) if whole else 16,
        BLOCK_E=BLOCK_E, WHOLE=whole, warps=8 if whole else 4,
    )  # fmt: skip
    dleave = sums.sum(dim=(0, 1)) if whole else products(dy_pixels, gated).sum(dim=0)
    return [*mixed_backward(dmixed, hidden, x, weights[:-1]), dleave.to(x.dtype).view(weights[-1].shape)]


def _whole(x: Tensor) -> bool:
    """Whether a program holds all channels: exact products of float32 keep more in registers."""
    return x.shape[1] <= (64 if x.dtype == torch.float32 else 128)


def _rows(x: Tensor) -> int:
    """Of a tile."""
    return 2 if x.dtype == torch.float32 else 4
