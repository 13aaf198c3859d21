"""Convolutions of channels-last images that several ops share: 1x1, and depthwise 3x3, zero outside.

A gradient of 1x1 weights is a product of two images summed over the pixels, a^T b. The second factor may be the
depthwise 3x3 of an image, which then is never written. A program sums a run of tiles of one image for one block of
channels x channels. Sums over the pixels are written per program and added up by torch: no atomics, the same result
every time, and no half-precision sums between the parts.

`depthwise_gate` and the backward passes of the 3x3 go down a strip of `COLUMNS` columns per program and read each row
once, in three shifts: registers hold what the row adds to the row above, to itself and to the row below. So an element
is read from the cache three times instead of nine. `convolved` is for kernels that use the convolution of a tile at
once and never write it. Its nine taps come from the cache: registers cannot be shifted in Triton.

`hidden` (N, H, W, K) holds the results of several 1x1, one after the other. Kernels take the 3x3 of it by `convolved`
and return the gradient of what they took, `dmixed`, of the same shape.

Traffic by count, in units of one image of the convolved channels: `depthwise_backward` 3 (dy and x in, dx out),
`depthwise_gate` 1.5, `depthwise_gate_backward` 2.5; the rims of the strips add to it, from the L2 cache. In units of x,
where K is k times its channels: `mixed` 1 + k, `mixed_backward` 5 k + 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .primitives_triton import column_sum, dot, launch, rounded, run_length

__all__ = [
    "COLUMNS",
    "convolved",
    "depthwise_backward",
    "depthwise_gate",
    "depthwise_gate_backward",
    "mixed",
    "mixed_backward",
    "pixel",
    "products",
    "tile_count",
]

ROWS = 8  # of a strip: 2 more are read
SUMMED_ROWS = 16  # of a strip that writes ten sums per channel
COLUMNS = 16  # of a tile or strip
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
        dy, x, _taps_first([weight]), dx, sums, height, width, channels,
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
        x, _taps_first([weight]), bias.contiguous(), x, sums, y, sums, height, width, half,
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
        x, _taps_first([weight]), bias.contiguous(), dy, shift, dx, shift, height, width, channels // 2,
        ROWS=ROWS, COLUMNS=COLUMNS, BLOCK_C=CHANNELS, GRADIENT=True,
    )  # fmt: skip
    return dx


def _taps_first(weights: Sequence[Tensor]) -> Tensor:
    """3x3 weights (E, 1, 3, 3) -> (9, K), K the sum of all E: the taps of neighbouring channels are loaded at once."""
    return torch.cat([weight.reshape(-1, 9) for weight in weights]).t().contiguous()


def _grid(x: Tensor, channels: int, rows: int) -> tuple[int, int, int]:
    """Strips of an image, blocks of channels, images."""
    n, _, height, width = x.shape
    return tile_count(height, width, rows), triton.cdiv(channels, CHANNELS), n


def tile_count(height: int, width: int, rows: int) -> int:
    """Return how many tiles of `rows` x COLUMNS pixels an image has."""
    return triton.cdiv(height, rows) * triton.cdiv(width, COLUMNS)


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


@triton.jit
def _products_kernel(
    a_ptr, b_ptr, taps_ptr, sums_ptr, height, width, CA, CB, A_STRIDE, B_STRIDE,
    TILES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
    CONVOLVED: tl.constexpr,
):  # fmt: skip
    n, a_blocks, b_blocks = tl.program_id(1).to(tl.int64), tl.cdiv(CA, BLOCK_A), tl.cdiv(CB, BLOCK_B)
    run, block = tl.program_id(0) // (a_blocks * b_blocks), tl.program_id(0) % (a_blocks * b_blocks)
    a_first, b_first = block // b_blocks * BLOCK_A, block % b_blocks * BLOCK_B
    ca, cb = tl.arange(0, BLOCK_A)[None, :], tl.arange(0, BLOCK_B)[None, :]
    a_live, b_live = a_first + ca < CA, b_first + cb < CB
    total = tl.zeros((BLOCK_A, BLOCK_B), tl.float32)
    for i in range(TILES):
        top, left, y, x = pixel(run * TILES + i, width, ROWS, COLUMNS)
        inside = (top + y < height) & (left + x < width)
        corner = (n * height + top) * width + left
        a_at = a_ptr + corner * A_STRIDE + a_first + (y * width + x) * A_STRIDE + ca
        a = tl.load(a_at, inside & a_live, 0.0)
        b_corner = b_ptr + corner * B_STRIDE + b_first
        if CONVOLVED:
            b = convolved(b_corner, taps_ptr + b_first, top, left, y, x, cb, b_live, height, width, B_STRIDE)
            b = rounded(b, b_ptr.dtype.element_ty)
        else:
            b = tl.load(b_corner + (y * width + x) * B_STRIDE + cb, inside & b_live, 0.0)
        total += dot(tl.trans(a), b)
    to = sums_ptr + (n * (tl.num_programs(0) // (a_blocks * b_blocks)) + run) * CA * CB
    rows, row_live = a_first + tl.arange(0, BLOCK_A)[:, None], a_first + tl.arange(0, BLOCK_A)[:, None] < CA
    tl.store(to + rows * CB + b_first + cb, total, row_live & b_live)


def products(a: Tensor, b: Tensor, taps: Tensor | None = None) -> Tensor:
    """Sum a[pixel]^T b[pixel] over the pixels of each image.

    Args:
        a: (N, H, W, CA), dense except for slices of channels.
        b: (N, H, W, CB), dense except for slices of channels.
        taps: (9, CB), of a depthwise 3x3 that is applied to `b` first; its rows are as far apart as the pixels of `b`.

    Returns:
        (N, CA, CB) float32.
    """
    n, height, width, ca = a.shape
    cb = b.shape[3]
    b_apart = _apart(b) if taps is None else taps.stride(0)
    if taps is None:  # pixels are alike: one long row of each
        height, width = 1, height * width
    block_a, block_b, pixels = _block(ca, a.dtype, 128), _block(cb, a.dtype, 64), 64 if a.itemsize == 2 else 32
    rows, columns = (1, pixels) if taps is None else (pixels // COLUMNS, COLUMNS)
    blocks = triton.cdiv(ca, block_a) * triton.cdiv(cb, block_b)
    tiles = triton.cdiv(height, rows) * triton.cdiv(width, columns)
    run = run_length(tiles, blocks * n)
    sums = a.new_empty((n, triton.cdiv(tiles, run), ca, cb), dtype=torch.float32)
    launch(
        _products_kernel, (sums.shape[1] * blocks, n),
        a, b, b if taps is None else taps, sums, height, width, ca, cb, _apart(a), b_apart,
        TILES=run, ROWS=rows, COLUMNS=columns, BLOCK_A=block_a, BLOCK_B=block_b, CONVOLVED=taps is not None,
        warps=8, stages=3 if a.itemsize == 2 else 2,
    )  # fmt: skip
    return sums.sum(dim=1)


def _apart(a: Tensor) -> int:
    """Elements from pixel to pixel; the stride along an axis of one pixel may be anything."""
    return next((a.stride(axis) for axis in (2, 1, 0) if a.shape[axis] > 1), a.shape[3])


def _block(channels: int, dtype: torch.dtype, widest: int) -> int:
    """Channels that a program takes at once: exact products of float32 keep more in registers."""
    return max(16, min(triton.next_power_of_2(channels), widest if dtype.itemsize == 2 else 64))


def mixed(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`hidden` of x (N, C, H, W) channels_last, and the taps (9, K) of the 3x3; K is the sum of all E.

    weights: by turns a 1x1 (E, C, 1, 1) and its 3x3 (E, 1, 3, 3).
    """
    return x.movedim(1, 3) @ _matrix(weights[::2]).mT, _taps_first(weights[1::2])


def mixed_backward(dmixed: Tensor, hidden: Tensor, x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of x (N, C, H, W) channels_last and of all weights, by turns a 1x1 and its 3x3, in the dtype of x."""
    mixes, depths = weights[::2], weights[1::2]
    dhidden, ddepth, _ = depthwise_backward(dmixed.movedim(3, 1), hidden.movedim(3, 1), torch.cat([*depths]))
    dhidden = dhidden.movedim(1, 3)
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    torch.mm(dhidden.flatten(0, 2), _matrix(mixes), out=dx.movedim(1, 3).view(-1, x.shape[1]))
    dmix = products(dhidden, x.movedim(1, 3)).sum(dim=0).to(x.dtype)
    found = [d for pair in zip(dmix.chunk(len(mixes)), ddepth.chunk(len(mixes)), strict=True) for d in pair]
    return [dx, *(d.reshape(weight.shape).clone() for d, weight in zip(found, weights, strict=True))]


def _matrix(mixes: Sequence[Tensor]) -> Tensor:
    return torch.cat([mix.flatten(1) for mix in mixes])
