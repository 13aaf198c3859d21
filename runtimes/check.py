"""Check the inputs and outputs of a graph against its specification, in one place for all runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GraphError, PackError
from ..core.pack.manifest import ArraySpec, GraphSpec
from ..core.restore.restorer import Graph

__all__ = ["check_interface", "checked", "first_line"]

_Array = NDArray[np.float32]


def checked(name: str, graph: Graph, spec: GraphSpec, multiple_of: int = 1) -> Graph:
    """`graph`, but a call whose inputs or outputs differ from `spec` in names, dtypes or shapes raises GraphError.

    The symbols "h" and "w" stand for the same number in all arrays of a call, a multiple of `multiple_of`.
    """

    def call(**inputs: _Array) -> dict[str, _Array]:
        sizes: dict[str, int] = {}
        _check(name, "input", inputs, spec.inputs, sizes)
        for symbol, size in sizes.items():
            if size == 0 or size % multiple_of:
                raise GraphError(
                    f"graph '{name}': expected {symbol} to be a multiple of {multiple_of}, got {size}; "
                    "pad the tile first"
                )
        outputs = graph(**inputs)
        _check(name, "output", outputs, spec.outputs, sizes)
        return outputs

    return call


def _check(
    graph: str, kind: str, given: Mapping[str, Any], expected: Mapping[str, ArraySpec], sizes: dict[str, int]
) -> None:
    if set(given) != set(expected):
        wanted, found = (", ".join(sorted(arrays)) or "(none)" for arrays in (expected, given))
        raise GraphError(
            f"graph '{graph}': expected the {kind}s {wanted}, got {found}; "
            "the graph and the manifest of the pack do not belong together"
        )
    for name, spec in expected.items():
        _check_array(f"graph '{graph}', {kind} '{name}'", given[name], spec, sizes)


def _check_array(where: str, given: Any, spec: ArraySpec, sizes: dict[str, int]) -> None:
    if not isinstance(given, np.ndarray) or given.dtype != spec.dtype:
        kind = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise GraphError(f"{where}: expected an array of {spec.dtype}, got {kind}; convert it before the call")
    fits = given.ndim == len(spec.shape) and all(
        size == (sizes.setdefault(symbol, size) if isinstance(symbol, str) else symbol)
        for size, symbol in zip(given.shape, spec.shape, strict=True)
    )
    if not fits:
        known = ", ".join(f"{symbol} = {size}" for symbol, size in sizes.items())
        raise GraphError(
            f"{where}: expected the shape {list(spec.shape)}{f' with {known}' if known else ''}, got "
            f"{list(given.shape)}; all arrays of a call must have one size"
        )


def check_interface(
    path: Path, spec: GraphSpec, inputs: Mapping[str, ArraySpec], outputs: Mapping[str, ArraySpec]
) -> None:
    """Raise PackError unless the file has the arrays of `spec`; a free size is any word in `inputs` and `outputs`."""
    for kind, given, expected in (("inputs", inputs, spec.inputs), ("outputs", outputs, spec.outputs)):
        if set(given) != set(expected) or not all(_fits(given[name], expected[name]) for name in expected):
            raise PackError(
                f"{path}, {kind}: the manifest says {dict(expected)}, got {dict(given)}; export the pack again"
            )


def _fits(given: ArraySpec, expected: ArraySpec) -> bool:
    """Where the manifest has a symbol the graph's size must be free; elsewhere it is free or that number."""
    if given.dtype != expected.dtype or len(given.shape) != len(expected.shape):
        return False
    pairs = zip(given.shape, expected.shape, strict=True)
    return all(not isinstance(size, int) or size == wanted for size, wanted in pairs)


def first_line(error: Exception) -> str:
    """What went wrong, in at most 200 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
