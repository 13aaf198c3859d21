"""Products of two channels-last pictures summed over the pixels, a^T b: the gradients of 1x1 weights, and maps between
channels. The second factor may be the depthwise 3x3 of a picture, which then is never written.

A program sums a run of tiles of one picture for one block of channels x channels. What programs found is added up by
torch: no atomics, the same result every time, and no half-precision sums between the parts.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch_triton import dot, launch
from .rounded_triton import rounded
from .stencil_triton import convolved, pixel

__all__ = ["products", "run_length"]

PROGRAMS = 264  # wanted at least, 2 for each of 132 multiprocessors: each leaves its sums
LONGEST = 64  # tiles that a program goes through
COLUMNS = 16  # of a tile


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
    """Sum over the pixels of a[pixel]^T b[pixel] for each picture: (N, CA, CB) float32.

    a: (N, H, W, CA), b: (N, H, W, CB), dense but for slices of channels. taps: (9, CB) of a depthwise 3x3 that is
    applied to b first; its rows are as far apart as the pixels of b.
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


def run_length(tiles: int, others: int) -> int:
    """Tiles that a program goes through, a power of two, so that `others` programs for each run are enough."""
    return max(1, min(LONGEST, triton.next_power_of_2(tiles * others // PROGRAMS + 1) // 2))


def _apart(a: Tensor) -> int:
    """Elements from pixel to pixel; the stride along an axis of one pixel may be anything."""
    return next((a.stride(axis) for axis in (2, 1, 0) if a.shape[axis] > 1), a.shape[3])


def _block(channels: int, dtype: torch.dtype, widest: int) -> int:
    """Channels that a program takes at once: exact products of float32 keep more in registers."""
    return max(16, min(triton.next_power_of_2(channels), widest if dtype.itemsize == 2 else 64))
