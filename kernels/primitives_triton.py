"""What all kernels share: starting them, or recording how they would be started, and arithmetic.

Triton's interpreter computes products, rounding and sums differently from a GPU; here they agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import triton
import triton.language as tl

__all__ = ["OPTIONS", "Launch", "block_width", "column_sum", "dot", "launch", "recorded", "rounded", "run_length"]

PROGRAMS = 264  # at least, 2 for each of 132 multiprocessors: each writes its sums
LONGEST = 64  # tiles that a program goes through
OPTIONS = {"enable_fp_fusion": True}
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


class Launch(NamedTuple):
    """One start of a kernel."""

    kernel: Any  # of triton.jit
    arguments: tuple[Any, ...]  # tensors and numbers
    constants: dict[str, Any]  # tl.constexpr parameters
    warps: int
    stages: int


_record: list[Launch] | None = None


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """List kernels within the block instead of starting them; what they would have written is undefined."""
    global _record
    before, _record = _record, []
    try:
        yield _record
    finally:
        _record = before


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, stages: int = 2, **constants: Any
) -> None:
    """Start `kernel` on `grid` with positional `arguments` and compile-time `constants`."""
    if _record is not None:
        _record.append(Launch(kernel, arguments, constants, warps, stages))
    else:
        kernel[grid](*arguments, **constants, num_warps=warps, num_stages=stages, **OPTIONS)


@triton.jit
def dot(a, b):
    """Multiply a (M, K) and b (K, N), of one dtype, in float32.

    float32 factors are multiplied exactly (no TF32). The interpreter mistakes bfloat16 for integers: cast first there.
    """
    if INTERPRETED:
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee", out_dtype=tl.float32)
    else:
        product = tl.dot(a, b, input_precision="ieee", out_dtype=tl.float32)
    return product


@triton.jit
def rounded(x, dtype):
    """Round float32 x to `dtype`, to nearest, ties to even.

    The interpreter truncates to bfloat16, which errs twice as much and always towards zero: round before it there. Not
    for NaN or numbers close to overflow.
    """
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def column_sum(x):
    """Sum the rows of x (P, B) float32 to (1, B); P is at least 8.

    The interpreter adds row after row, with an error that grows with P; a GPU adds in a tree. Add eighths first there.
    """
    if INTERPRETED:
        x = tl.sum(tl.reshape(x, (8, x.shape[0] // 8, x.shape[1])), 1)
    return tl.sum(x, 0, keep_dims=True)


def run_length(tiles: int, others: int) -> int:
    """Return how many tiles a program goes through, a power of two.

    Few enough for `PROGRAMS` programs in all, with `others` programs for each run of tiles.
    """
    return max(1, min(LONGEST, triton.next_power_of_2(tiles * others // PROGRAMS + 1) // 2))


def block_width(channels: int) -> int:
    """Return the channels padded to what a matrix product takes."""
    return max(16, triton.next_power_of_2(channels))
