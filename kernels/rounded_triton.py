"""Rounding and sums that are in Triton's interpreter what they are on a GPU."""

from __future__ import annotations

import triton
import triton.language as tl

from .launch_triton import INTERPRETED

__all__ = ["column_sum", "rounded"]


@triton.jit
def rounded(x, dtype):
    """float32 x in `dtype`, to nearest, ties to even.

    The interpreter cuts off what bfloat16 cannot hold, which errs twice as much and always towards zero: there, round
    before. Not for NaN or numbers close to overflow.
    """
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def column_sum(x):
    """Sum of the rows of x (P, B) float32, (1, B); P is at least 8.

    The interpreter adds row to row, whose error grows with P, a GPU adds as in a tree: there, add eighths first.
    """
    if INTERPRETED:
        x = tl.sum(tl.reshape(x, (8, x.shape[0] // 8, x.shape[1])), 1)
    return tl.sum(x, 0, keep_dims=True)
