"""1x1 convolutions: gradients of their weights, and several side by side before depthwise 3x3 convolutions.

A gradient is a product of two channels-last images summed over the pixels, a^T b. The second factor may be the
depthwise 3x3 of an image, which then is never written. A program sums a run of tiles of one image for one block of
channels x channels. torch adds up the sums of the programs: no atomics, the same result every time, and no
half-precision sums between the parts.

`hidden` (N, H, W, K) holds the results of several 1x1, one after the other. Kernels take the 3x3 of it by
`depthwise_triton.convolved` and return the gradient of what they took, `dmixed`, of the same shape. Traffic by count,
in units of x, where K is k times its channels: `pointwise` 1 + k, `mixed_backward` 5 k + 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .depthwise_triton import convolved, depthwise_backward, pixel
from .primitives_triton import dot, launch, rounded, run_length

__all__ = ["mixed_backward", "pointwise", "products"]

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


def pointwise(x: Tensor, mixes: Sequence[Tensor]) -> Tensor:
    """Apply 1x1 weights (E, C, 1, 1) to x (N, C, H, W) channels_last: (N, H, W, K), K the sum of all E."""
    return x.movedim(1, 3) @ _matrix(mixes).mT


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
