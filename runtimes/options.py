"""How a runtime runs a graph, and what depends on the names of runtimes and targets."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ARITHMETIC", "CPU_RUNTIMES", "DEFAULT_OPTIONS", "TYPED_TARGETS", "RuntimeOptions", "arithmetic_of"]

ARITHMETIC = ("fp32", "bf16", "fp16")
# The runtimes that benchmarks time on a CPU, each with the arithmetic that single graphs are timed in.
CPU_RUNTIMES = {"onnxruntime": ("fp32",), "openvino": ("fp32", "bf16")}
# Targets whose files declare a type for each value, of the same name in every precision.
TYPED_TARGETS = ("coreml",)


class RuntimeOptions(NamedTuple):
    """How a graph is run.

    In fp32 every machine computes the same. 16 bits are faster on a processor that has them, and refused elsewhere.
    """

    threads: int | None = None  # for one graph call; None for the runtime's own choice
    device: str = "CPU"  # a name that the runtime knows
    arithmetic: str = "fp32"  # one of ARITHMETIC: what numbers other than integers are computed in


DEFAULT_OPTIONS = RuntimeOptions()


def arithmetic_of(precision: str, target: str) -> str:
    """What a graph file is computed in, other than integers: one of ARITHMETIC.

    Args:
        precision: Of the file, as the manifest labels it: "fp32", "int8", "int8+bf16" ...
        target: The target that the file is for.
    """
    _, plus, suffix = precision.rpartition("+")
    # Without a plus, float16 is only how weights are stored, unless the file declares it for each of its values.
    half = suffix == "fp16" and (plus or target in TYPED_TARGETS)
    return suffix if half or suffix == "bf16" else "fp32"
