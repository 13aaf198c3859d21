"""What every op of a Core ML program gives, in our evaluator; Core ML itself does not tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...core.arrays import Array
from ..coreml import in_levels
from ..mil import read_package
from .findings import Value

__all__ = ["inside"]


def inside(path: Path, graph: str, inputs: Mapping[str, Array], arithmetic: str) -> dict[str, Value]:
    """All float arrays of the program of a graph, by name, in the order of computation."""
    found: dict[str, Value] = {}

    def observe(op: str, output: str, array: Array) -> None:
        if array.dtype.kind == "f":
            found[output] = Value(array, output, op, "")

    program = read_package(path.parent).function(graph)
    program.run(in_levels(inputs, program.inputs), arithmetic, observe)
    return found
