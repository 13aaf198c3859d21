"""Answers from recorded calls: the fake runtime of the tests.

The file is an .npz (`core/pack/store.py`) with the arrays `<graph>/<number of the call>/<in or out>/<name>`. A call is
answered only if its inputs are exactly those of a recorded call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array
from ..core.errors import GraphError, PackError
from ..core.pack.manifest import GraphSpec
from ..core.pack.store import read_arrays, write_arrays
from ..core.restore.restorer import Graph
from .options import DEFAULT_OPTIONS, RuntimeOptions

__all__ = ["TARGET", "TARGETS", "Recorder", "open"]

TARGET = "replay"
TARGETS = (TARGET,)

_Arrays = dict[str, NDArray[np.float32]]


def open(path: Path, name: str, spec: GraphSpec, options: RuntimeOptions = DEFAULT_OPTIONS) -> Graph:  # noqa: ARG001
    """The calls of the graph `name` recorded in `path`; `options` are ignored.

    Raises:
        PackError: The file holds no call of that graph.
        GraphError: From the graph: its inputs were not recorded.
    """
    answers = {_digest(inputs): outputs for inputs, outputs in _calls(path, name)}
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


@dataclass
class Recorder:
    """Records the calls of the graphs that it wraps."""

    arrays: dict[str, Array] = field(default_factory=dict[str, Array])
    calls: dict[str, int] = field(default_factory=dict[str, int])

    def wrap(self, name: str, graph: Graph) -> Graph:
        """`graph`, with each call recorded under `name`."""

        def call(**inputs: NDArray[np.float32]) -> _Arrays:
            outputs = graph(**inputs)
            self._keep(name, inputs, outputs)
            return outputs

        return call

    def save(self, path: Path) -> None:
        """Write the recorded calls."""
        write_arrays(path, self.arrays)

    def _keep(self, name: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        number = self.calls.setdefault(name, 0)
        self.calls[name] += 1
        for kind, arrays in (("in", inputs), ("out", outputs)):
            self.arrays |= {f"{name}/{number}/{kind}/{n}": array.copy() for n, array in arrays.items()}


def _calls(path: Path, graph: str) -> list[tuple[_Arrays, _Arrays]]:
    calls: dict[str, tuple[_Arrays, _Arrays]] = {}
    for key, array in read_arrays(path).items():
        owner, number, kind, name = [*key.split("/"), "", "", ""][:4]
        if owner == graph and kind in ("in", "out"):
            calls.setdefault(number, ({}, {}))[kind == "out"][name] = array
    return list(calls.values())


def _digest(arrays: Mapping[str, Array]) -> str:
    """One number for the names, shapes and bits of arrays."""
    digest = sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape};".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
