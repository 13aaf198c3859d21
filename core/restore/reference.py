"""The file of a reference: every graph call of some restorations, the results, and where they were computed.

An .npz file (`core/pack/store.py`) with `about`, a JSON text that names arrays by their keys, `seal`, the sha256 of
that text, and the arrays. A key is the hash of an array's content: equal arrays are stored once, a changed one is
found. Two references of the same calls have the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, Image
from ..errors import PackError, PackTamperedError, PackVersionError
from ..files import atomic_output, failure_reason
from ..pack.json import as_text, as_tree, decode, parse
from ..pack.manifest import Manifest, mirror
from ..pack.store import read_arrays, write_arrays
from .restorer import GoldenSettings, Graph, Restorer

__all__ = [
    "REPLAY",
    "ParityReference",
    "RecordedCall",
    "ReferenceCall",
    "ReferenceCase",
    "ReferenceHeader",
    "ReferenceWriter",
    "facts_of",
    "load",
    "record_calls",
]

REFERENCE_FORMAT = 1
REPLAY = "replay"  # the runtime that answers from recorded calls, and its target in a manifest
ABOUT, SEAL = "about", "seal"

# The facts of a manifest that the numbers depend on.
FIELDS = (
    "model",
    "tasks",
    "value_range",
    "size",
    "receptive_field",
    "sampler",
    "predicts",
    "start",
    "start_level",
    "levels",
    "times",
    "noise",
    "state",
    "residual_scale",
    "gain",
    "conditions",
    "graphs",
)


@dataclass(frozen=True)
class ReferenceCall:
    """One call of a graph."""

    graph: str
    inputs: Mapping[str, str]  # name -> key
    outputs: Mapping[str, str]  # name -> key
    rounding: Mapping[str, float]  # output -> root mean square distance of its float32 values from float64
    kernels: Mapping[str, str]  # output -> key of what the fused kernels made of it


@dataclass(frozen=True)
class ReferenceCase:
    """A restoration; its images are (H, W, 3) uint16."""

    name: str
    seed: int
    strength: float
    tile: int | None  # the edge that was asked for, None for that of the pack's windows
    photo: str  # key
    calls: Mapping[str, tuple[ReferenceCall, ...]]  # form ("split", "fused") -> calls in their order
    pictures: Mapping[str, str]  # form -> key of the restored image
    clean: str | None = None  # key of the photo before it was damaged
    teacher: str | None = None  # key of what the model's teacher makes of the photo
    amount: float = 1.0

    @property
    def settings(self) -> GoldenSettings:
        """What the restorer was given, except for the tile."""
        return GoldenSettings(seed=self.seed, strength=self.strength, amount=self.amount)


@dataclass(frozen=True)
class ReferenceHeader:
    """All of a reference but the arrays."""

    format: int
    checkpoint: str  # sha256
    facts: str  # JSON of FIELDS
    environment: Mapping[str, str]  # where it was computed, in words
    cases: tuple[ReferenceCase, ...]


class RecordedCall(NamedTuple):
    """A call with its arrays."""

    graph: str
    inputs: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class ParityReference:
    """A reference in memory."""

    about: ReferenceHeader
    arrays: Mapping[str, Array]  # by key
    origin: str  # where it comes from, in words

    def named(self, keys: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
        """The arrays of a call, by name."""
        return {name: self.arrays[key] for name, key in keys.items()}


class ReferenceWriter:
    """Collects arrays under their keys."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def key(self, array: NDArray[Any]) -> str:
        """Keep an array; returns its key."""
        key = _key(array)
        if key not in self.arrays:
            self.arrays[key] = np.array(array, order="C")
        return key

    def keys(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
        """Keep arrays by name; returns their keys."""
        return {name: self.key(array) for name, array in arrays.items()}

    def save(self, path: Path, about: ReferenceHeader) -> None:
        """Write the file in one piece; PackError if it cannot be written."""
        text = as_text(as_tree(about)).encode()
        head = {ABOUT: np.frombuffer(text, np.uint8), SEAL: np.frombuffer(hashlib.sha256(text).digest(), np.uint8)}
        try:
            with atomic_output(path, overwrite=True) as temporary:
                write_arrays(temporary, {**self.arrays, **head})
        except OSError as error:
            raise PackError(f"the reference {path} cannot be written: {failure_reason(error)}") from error


def load(path: Path) -> ParityReference:
    """Read and check a reference.

    Raises PackError for no reference or a damaged one, PackVersionError for another format, PackTamperedError for a
    file that was changed.
    """
    arrays = read_arrays(path)
    if not {ABOUT, SEAL} <= set(arrays):
        raise PackError(f"{path} is no reference made by 'pocketprior parity record': it lacks '{ABOUT}' and '{SEAL}'")
    text, seal = arrays.pop(ABOUT).tobytes(), arrays.pop(SEAL).tobytes()
    if hashlib.sha256(text).digest() != seal:
        raise _tampered(path, "its text")
    tree = parse(text.decode(errors="replace"), str(path))
    given = cast(dict[str, object], tree).get("format") if isinstance(tree, dict) else None
    if given != REFERENCE_FORMAT:
        raise PackVersionError(
            f"{path}: expected a reference of format {REFERENCE_FORMAT}, got format {given!r}; record it again"
        )
    for key, array in arrays.items():
        if _key(array) != key:
            raise _tampered(path, f"the array {key}")
    about = decode(ReferenceHeader, cast(object, tree), str(path))
    missing = sorted(set(_keys(about)) - set(arrays))
    if missing:
        raise PackError(
            f"the reference {path} lacks {len(missing)} of the arrays that it names; copy or record it again"
        )
    return ParityReference(about, arrays, f"recorded on {about.environment.get('device', 'an unknown device')}")


def record_calls(restorer: Restorer, photo: Image, **options: Any) -> tuple[Image, list[RecordedCall]]:
    """Restore a photo; returns the image, and the calls of the graphs in their order."""
    calls: list[RecordedCall] = []

    def recorded(name: str, graph: Graph) -> Graph:
        def call(**inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
            outputs = graph(**inputs)
            kept_in, kept_out = ({n: array.copy() for n, array in arrays.items()} for arrays in (inputs, outputs))
            calls.append(RecordedCall(name, kept_in, kept_out))
            return outputs

        return call

    graphs = {name: recorded(name, graph) for name, graph in restorer.graphs.items()}
    return Restorer(restorer.manifest, graphs)(photo, **options), calls


def facts_of(manifest: Manifest) -> str:
    """The facts that a reference and a pack must share, as JSON."""
    tree = json.loads(mirror(manifest))
    return as_text({name: tree[name] for name in FIELDS if name in tree})


def _key(array: Array) -> str:
    head = f"{array.dtype.str} {array.shape};".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]


def _keys(about: ReferenceHeader) -> Iterable[str]:
    for case in about.cases:
        yield from (case.photo, *case.pictures.values(), *filter(None, (case.clean, case.teacher)))
        for call in (call for calls in case.calls.values() for call in calls):
            yield from (*call.inputs.values(), *call.outputs.values(), *call.kernels.values())


def _tampered(path: Path, what: str) -> PackTamperedError:
    return PackTamperedError(f"the reference {path}: {what} was changed after it was made; copy or record it again")
