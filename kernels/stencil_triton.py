"""The depthwise 3x3 of a tile of a channels-last picture, for kernels that use it up at once and never write it.

The nine taps come from the cache; registers cannot be shifted in Triton. `depthwise_triton` is the convolution alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["convolved", "pixel"]


@triton.jit
def pixel(tile, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Top and left of a tile, and of its pixels (ROWS * COLUMNS, 1) the row and column within the tile."""
    across = tl.cdiv(width, COLUMNS)
    p = tl.arange(0, ROWS * COLUMNS)[:, None]
    return tile // across * ROWS, tile % across * COLUMNS, p // COLUMNS, p % COLUMNS


@triton.jit
def convolved(corner_ptr, taps_ptr, top, left, y, x, c, live, height, width, stride):
    """Pixels (P, 1) y, x of a tile and channels (1, BLOCK) c -> (P, BLOCK) float32, zero outside the picture.

    corner_ptr: the pixel (top, left) of a picture of `stride` channels. taps_ptr: (9, stride), at the same channel.
    """
    total = tl.zeros((y.shape[0], c.shape[1]), tl.float32)
    middle = (top + y < height) & (left + x < width) & live
    before, after = middle & (left + x > 0), middle & (left + x + 1 < width)
    at = corner_ptr + ((y - 1) * width + x) * stride + c
    taps_ptr += c
    for i in range(3):  # a loop, lest the compiler load all nine taps ahead and run out of registers
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
