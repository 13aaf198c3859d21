"""Starting kernels, or writing down how they would be started: what is compiled ahead of time is what is launched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import triton
import triton.language as tl

__all__ = ["INTERPRETED", "OPTIONS", "Launch", "dot", "launch", "recorded"]

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
    """Within the block kernels are not started but listed; what they would have written is undefined."""
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
    """a (M, K) @ b (K, N) in float32, from factors of one dtype.

    float32 factors are multiplied exactly (no TF32). The interpreter takes bfloat16 for integers: there, cast first.
    """
    if INTERPRETED:
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee", out_dtype=tl.float32)
    else:
        product = tl.dot(a, b, input_precision="ieee", out_dtype=tl.float32)
    return product
