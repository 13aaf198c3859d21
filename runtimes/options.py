"""How a runtime is to run a graph."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ARITHMETIC", "Options", "arithmetic_of"]

ARITHMETIC = ("fp32", "bf16", "fp16")


class Options(NamedTuple):
    """threads: for one graph call, None for the runtime's own choice. device: a name that the runtime knows.

    arithmetic: one of ARITHMETIC, what numbers that are not integers are computed in. fp32 gives the same everywhere;
    16 bits are faster where the processor has them, and refused where it has not.
    """

    threads: int | None = None
    device: str = "CPU"
    arithmetic: str = "fp32"


def arithmetic_of(precision: str, target: str) -> str:
    """What a graph file of this precision ("fp32", "int8", "int8+bf16" ...) is to be computed in beside integers."""
    _, plus, told = precision.rpartition("+")
    # Without a plus, float16 is how weights are stored; a Core ML package says it of each of its values.
    halves = told == "fp16" and (plus or target == "coreml")
    return told if halves or told == "bf16" else "fp32"
