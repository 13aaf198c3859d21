"""Answers from recorded calls: the fake runtime of the tests.

The file is an .npz (`core/pack/store.py`) with the arrays `<graph>/<number of the call>/<in or out>/<name>`. A call is
answered only if its inputs are exactly those of a recorded call.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array
from ..core.errors import GraphError, PackError
from ..core.pack.manifest import GraphSpec
from ..core.pack.store import read_arrays
from ..core.restore.reference import REPLAY
from ..core.restore.restorer import Graph
from .options import DEFAULT_OPTIONS, RuntimeOptions

__all__ = ["TARGETS", "open"]

TARGETS = (REPLAY,)

_Arrays = dict[str, NDArray[np.float32]]


def open(path: Path, name: str, spec: GraphSpec, options: RuntimeOptions = DEFAULT_OPTIONS) -> Graph:  # noqa: ARG001
    """The calls of the graph `name` recorded in `path`; `options` are ignored. Other inputs are a GraphError."""
    calls: dict[str, tuple[_Arrays, _Arrays]] = {}
    for key, array in read_arrays(path).items():
        owner, number, kind, argument = [*key.split("/"), "", "", ""][:4]
        if owner == name and kind in ("in", "out"):
            calls.setdefault(number, ({}, {}))[kind == "out"][argument] = array
    answers = {_digest(inputs): outputs for inputs, outputs in calls.values()}
    if not answers:
        raise PackError(f"{path} holds no call of the graph '{name}'; record it again")

    def call(**inputs: NDArray[np.float32]) -> _Arrays:
        key = _digest(inputs)
        if key not in answers:
            shapes = ", ".join(f"{n} {list(inputs[n].shape)}" for n in sorted(inputs))
            raise GraphError(
                f"graph '{name}': none of the {len(answers)} calls recorded in {path} has these inputs ({shapes}); "
                "use the recorded photo, seed and tile, or another runtime"
            )
        return {n: array.copy() for n, array in answers[key].items()}

    return call


def _digest(arrays: Mapping[str, Array]) -> str:
    """One number for the names, shapes and bits of arrays."""
    digest = sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape};".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
