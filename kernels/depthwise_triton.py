"""Depthwise 3x3 convolutions of channels-last images, zero outside, in two forms.

`depthwise_gate` and the backward passes go down a strip of `COLUMNS` columns per program and read each row once, in
three shifts: registers hold what the row adds to the row above, to itself and to the row below. So an element is read
from the cache three times instead of nine. Sums over the pixels are written per program and added up by torch: no
atomics. Traffic by count, in units of one image of the convolved channels: `depthwise_backward` 3 (dy and x in, dx
out), `depthwise_gate` 1.5, `depthwise_gate_backward` 2.5; the rims of the strips add to it, from the L2 cache.

`convolved` is for kernels that use the convolution of a tile at once and never write it. Its nine taps come from the
cache: registers cannot be shifted in Triton.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .primitives_triton import column_sum, launch, rounded

__all__ = ["convolved", "depthwise_backward", "depthwise_gate", "depthwise_gate_backward", "pixel", "taps_first"]

ROWS = 8  # of a strip: 2 more are read
SUMMED_ROWS = 16  # of a strip that writes ten sums per channel
COLUMNS = 16  # of a strip
CHANNELS = 32  # of a strip: each of 128 threads holds four of a pixel, so that the taps stay in registers


@triton.jit
def _strip(width, live, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """First row, the columns, and where those to the left, they and those to the right are inside the image."""
    strips = tl.cdiv(width, COLUMNS)
    x = tl.program_id(0) % strips * COLUMNS + tl.arange(0, COLUMNS)[:, None]
    masks = (x > 0) & (x <= width) & live, (x < width) & live, (x + 1 < width) & live
    return tl.program_id(0) // strips * ROWS, x, masks


@triton.jit
def _row(row_ptr, y, height, offset, C, masks):
    """Row y of an image, (COLUMNS, BLOCK_C) float32: the pixels to the left, the pixels, the pixels to the right."""
    line = y + tl.arange(0, 1)[:, None]  # (1, 1): the interpreter mistakes a scalar & a block for a number
    inside = (line >= 0) & (line < height)
    left = tl.load(row_ptr + offset - C, masks[0] & inside, 0.0).to(tl.float32)
    middle = tl.load(row_ptr + offset, masks[1] & inside, 0.0).to(tl.float32)
    right = tl.load(row_ptr + offset + C, masks[2] & inside, 0.0).to(tl.float32)
    return left, middle, right


@triton.jit
def _taps(w_ptr, c, C, live):
    """The taps, `C` apart, row by row, each (1, BLOCK_C) float32."""
    a = tl.load(w_ptr + c, live, 0.0).to(tl.float32)
    b = tl.load(w_ptr + C + c, live, 0.0).to(tl.float32)
    d = tl.load(w_ptr + 2 * C + c, live, 0.0).to(tl.float32)
    e = tl.load(w_ptr + 3 * C + c, live, 0.0).to(tl.float32)
    f = tl.load(w_ptr + 4 * C + c, live, 0.0).to(tl.float32)
    g = tl.load(w_ptr + 5 * C + c, live, 0.0).to(tl.float32)
    h = tl.load(w_ptr + 6 * C + c, live, 0.0).to(tl.float32)
    i = tl.load(w_ptr + 7 * C + c, live, 0.0).to(tl.float32)
    j = tl.load(w_ptr + 8 * C + c, live, 0.0).to(tl.float32)
    return a, b, d, e, f, g, h, i, j


@triton.jit
def _spread(row, above, here, start, taps):
    """Add a row to the sums of the row above, now complete, of its own and, from `start`, of the row below."""
    left, middle, right = row
    above += left * taps[6] + middle * taps[7] + right * taps[8]
    here += left * taps[3] + middle * taps[4] + right * taps[5]
    return above, here, start + left * taps[0] + middle * taps[1] + right * taps[2]


@triton.jit
def _complete(y, top, height, mask):
    """Where the row above row y is one of the strip and of the image."""
    line = y + tl.arange(0, 1)[:, None]
    return mask & (line > top) & (line <= height)


@triton.jit
def _depthwise_backward_kernel(
    dy_ptr, x_ptr, w_ptr, dx_ptr, sums_ptr, height, width, C,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # dx is dy convolved with the taps in reverse; a tap's gradient is the sum of x times dy, shifted the same way.
    n = tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    top, x, masks = _strip(width, c < C, ROWS, COLUMNS)
    offset = x * C + c
    taps = _taps(w_ptr + 8 * C, c, -C, c < C)
    zero = tl.zeros((COLUMNS, BLOCK_C), tl.float32)
    above, here, x_above, x_here = zero, zero, zero, zero
    g0, g1, g2, g3, g4, g5, g6, g7, g8, total = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for i in range(ROWS + 2):
        y = top - 1 + i
        at = (n * height + y) * width * C
        row = _row(dy_ptr + at, y, height, offset, C, masks)
        done, above, here = _spread(row, above, here, zero, taps)
        to = dx_ptr + at - width * C + offset
        tl.store(to, rounded(done, dx_ptr.dtype.element_ty), _complete(y, top, height, masks[1]))
        left, middle, right = row
        line = y + tl.arange(0, 1)[:, None]
        below = masks[1] & (line + 1 < tl.minimum(top + ROWS, height))
        x_below = tl.load(x_ptr + at + width * C + offset, below, 0.0).to(tl.float32)
        g0, g1, g2 = g0 + x_above * right, g1 + x_above * middle, g2 + x_above * left
        g3, g4, g5 = g3 + x_here * right, g4 + x_here * middle, g5 + x_here * left
        g6, g7, g8 = g6 + x_below * right, g7 + x_below * middle, g8 + x_below * left
        total += tl.where((line >= top) & (line < top + ROWS), middle, 0.0)
        x_above, x_here = x_here, x_below
    to = sums_ptr + (n * tl.num_programs(0) + tl.program_id(0)) * 10 * C + c
    tl.store(to, column_sum(g0), c < C)
    tl.store(to + C, column_sum(g1), c < C)
    tl.store(to + 2 * C, column_sum(g2), c < C)
    tl.store(to + 3 * C, column_sum(g3), c < C)
    tl.store(to + 4 * C, column_sum(g4), c < C)
    tl.store(to + 5 * C, column_sum(g5), c < C)
    tl.store(to + 6 * C, column_sum(g6), c < C)
    tl.store(to + 7 * C, column_sum(g7), c < C)
    tl.store(to + 8 * C, column_sum(g8), c < C)
    tl.store(to + 9 * C, column_sum(total), c < C)


@triton.jit
def _gate_kernel(
    x_ptr, w_ptr, bias_ptr, dy_ptr, shift_ptr, y_ptr, sums_ptr, height, width, C,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_C: tl.constexpr, GRADIENT: tl.constexpr,
):  # fmt: skip
    # Of 2 C convolved channels the first half, a, is gated by the second, b. Stores a b and its sum over the strip, or
    # the gradients of a and b: d b and d a with d = dy + shift.
    n = tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    live = c < C
    top, x, masks = _strip(width, live, ROWS, COLUMNS)
    offset, half = x * 2 * C + c, x * C + c
    taps = _taps(w_ptr, c, 2 * C, live)
    gate_taps = _taps(w_ptr + C, c, 2 * C, live)
    zero = tl.zeros((COLUMNS, BLOCK_C), tl.float32)
    start = zero + tl.load(bias_ptr + c, live, 0.0).to(tl.float32)
    gate_start = zero + tl.load(bias_ptr + C + c, live, 0.0).to(tl.float32)
    above, here, gate_above, gate_here, total = start, start, gate_start, gate_start, zero
    for i in range(ROWS + 2):
        y = top - 1 + i
        pixel = (n * height + y) * width
        row_ptr = x_ptr + pixel * 2 * C
        row = _row(row_ptr, y, height, offset, 2 * C, masks)
        a, above, here = _spread(row, above, here, start, taps)
        row = _row(row_ptr + C, y, height, offset, 2 * C, masks)
        b, gate_above, gate_here = _spread(row, gate_above, gate_here, gate_start, gate_taps)
        complete = _complete(y, top, height, masks[1])
        if GRADIENT:
            d = tl.load(dy_ptr + (pixel - width) * C + half, complete, 0.0).to(tl.float32)
            d += tl.load(shift_ptr + n * C + c, live, 0.0)
            to = y_ptr + (pixel - width) * 2 * C + offset
            tl.store(to, rounded(d * b, y_ptr.dtype.element_ty), complete)
            tl.store(to + C, rounded(d * a, y_ptr.dtype.element_ty), complete)
        else:
            gated = tl.where(complete, a * b, 0.0)
            total += gated
            tl.store(y_ptr + (pixel - width) * C + half, rounded(gated, y_ptr.dtype.element_ty), complete)
    if not GRADIENT:
        to = sums_ptr + (n * tl.num_programs(0) + tl.program_id(0)) * C + c
        tl.store(to, column_sum(total), live)


def depthwise_backward(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (channels_last), weight and bias, in their shapes and the dtype of x."""
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    n, channels, height, width = x.shape
    grid = _grid(x, channels, SUMMED_ROWS)
    sums = x.new_empty((n * grid[0], 10, channels), dtype=torch.float32)
    launch(
        _depthwise_backward_kernel, grid,
        dy, x, taps_first([weight]), dx, sums, height, width, channels,
        ROWS=SUMMED_ROWS, COLUMNS=COLUMNS, BLOCK_C=CHANNELS,
    )  # fmt: skip
    total = sums.sum(dim=0)
    dweight = total[:9].t().to(x.dtype, copy=True, memory_format=torch.contiguous_format)
    return dx, dweight.reshape(weight.shape), total[9].to(x.dtype)


def depthwise_gate(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a * b, where a and b are the halves of the convolved channels.

    Args:
        x: (N, 2C, H, W) channels_last.
        weight: (2C, 1, 3, 3).
        bias: (2C,).

    Returns:
        The product (N, C, H, W) channels_last, and parts of its sum over each image, before rounding, (N, strips, C)
        float32.
    """
    n, channels, height, width = x.shape
    half = channels // 2
    y = x.new_empty((n, height, width, half)).movedim(-1, 1)
    grid = _grid(x, half, ROWS)
    sums = x.new_empty((n, grid[0], half), dtype=torch.float32)
    launch(
        _gate_kernel, grid,
        x, taps_first([weight]), bias.contiguous(), x, sums, y, sums, height, width, half,
        ROWS=ROWS, COLUMNS=COLUMNS, BLOCK_C=CHANNELS, GRADIENT=False,
    )  # fmt: skip
    return y, sums


def depthwise_gate_backward(dy: Tensor, shift: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the gradient (N, 2C, H, W) of the convolution's result for the gradient dy + shift of a * b.

    Args:
        dy: (N, C, H, W) channels_last.
        shift: (N, C) float32.
        x: (N, 2C, H, W) channels_last.
        weight: (2C, 1, 3, 3).
        bias: (2C,).
    """
    _, channels, height, width = x.shape
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    launch(
        _gate_kernel, _grid(x, channels // 2, ROWS),
        x, taps_first([weight]), bias.contiguous(), dy, shift, dx, shift, height, width, channels // 2,
        ROWS=ROWS, COLUMNS=COLUMNS, BLOCK_C=CHANNELS, GRADIENT=True,
    )  # fmt: skip
    return dx


def taps_first(weights: Sequence[Tensor]) -> Tensor:
    """3x3 weights (E, 1, 3, 3) -> (9, K), K the sum of all E: the taps of neighbouring channels are loaded at once."""
    return torch.cat([weight.reshape(-1, 9) for weight in weights]).t().contiguous()


def _grid(x: Tensor, channels: int, rows: int) -> tuple[int, int, int]:
    """Strips of an image, blocks of channels, images."""
    n, _, height, width = x.shape
    return triton.cdiv(height, rows) * triton.cdiv(width, COLUMNS), triton.cdiv(channels, CHANNELS), n


@triton.jit
def pixel(tile, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Top and left of a tile, and of its pixels (ROWS * COLUMNS, 1) the row and column within the tile."""
    across = tl.cdiv(width, COLUMNS)
    p = tl.arange(0, ROWS * COLUMNS)[:, None]
    return tile // across * ROWS, tile % across * COLUMNS, p // COLUMNS, p % COLUMNS


@triton.jit
def convolved(corner_ptr, taps_ptr, top, left, y, x, c, live, height, width, stride):
    """Pixels (P, 1) y, x of a tile and channels (1, BLOCK) c -> (P, BLOCK) float32, zero outside the image.

    corner_ptr: the pixel (top, left) of an image of `stride` channels. taps_ptr: (9, stride), at the same channel.
    """
    total = tl.zeros((y.shape[0], c.shape[1]), tl.float32)
    middle = (top + y < height) & (left + x < width) & live
    before, after = middle & (left + x > 0), middle & (left + x + 1 < width)
    at = corner_ptr + ((y - 1) * width + x) * stride + c
    taps_ptr += c
    for i in range(3):  # a loop: otherwise the compiler loads all nine taps ahead and runs out of registers
        inside = (top + y + i > 0) & (top + y + i <= height)
        before_it = tl.load(at - stride, before & inside, 0.0).to(tl.float32)
        total += before_it * tl.load(taps_ptr, live, 0.0).to(tl.float32)
        itself = tl.load(at, middle & inside, 0.0).to(tl.float32)
        total += itself * tl.load(taps_ptr + stride, live, 0.0).to(tl.float32)
        after_it = tl.load(at + stride, after & inside, 0.0).to(tl.float32)
        total += after_it * tl.load(taps_ptr + 2 * stride, live, 0.0).to(tl.float32)
        at += width * stride
        taps_ptr += 3 * stride
    return total
