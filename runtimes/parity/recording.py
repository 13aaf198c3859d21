"""The file of a reference: every graph call of some restorations, what came of them, and where that was computed.

An .npz file (`core/pack/store.py`) with `about`, a JSON text that names arrays by their keys, `seal`, the sha256 of
that text, and the arrays. A key is the hash of what is in the array, so that equal arrays are there once and a changed
one is found. Two recordings of the same calls have the same bytes.
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

from ...core.arrays import Array, Image
from ...core.errors import PackError, PackTamperedError, PackVersionError
from ...core.files import atomic_output, failure_reason
from ...core.pack.json import as_text, as_tree, decode, parse
from ...core.pack.manifest import Manifest, mirror
from ...core.pack.store import read_arrays, write_arrays
from ...core.restore.restorer import GoldenSettings, Restorer
from ..replay import Recorder

__all__ = ["FIELDS", "FORMAT", "About", "Call", "Case", "Recording", "Taken", "Writer", "facts_of", "load", "taken"]

FORMAT = 1
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
class Call:
    """One call of a graph: array name -> key.

    rounding: output -> root mean square distance of this float32 result from that in float64, as far as it was
    measured. kernels: the outputs with fused kernels, as far as there were some.
    """

    graph: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    rounding: Mapping[str, float]
    kernels: Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """A restoration: what went in, and by form ("split", "fused") the calls in their order and the picture.

    photo and pictures: keys of (H, W, 3) uint16. tile: the edge that was asked for, None for that of the pack's
    windows. clean: key of the photo before it was damaged, as far as there is one. teacher: key of what the model's
    teacher makes of the photo.
    """

    name: str
    seed: int
    strength: float
    tile: int | None
    photo: str
    calls: Mapping[str, tuple[Call, ...]]
    pictures: Mapping[str, str]
    clean: str | None = None
    teacher: str | None = None
    amount: float = 1.0

    @property
    def settings(self) -> GoldenSettings:
        """What the restorer was given besides the tile."""
        return GoldenSettings(seed=self.seed, strength=self.strength, amount=self.amount)


@dataclass(frozen=True)
class About:
    """All but the arrays. checkpoint: sha256; facts: JSON of FIELDS; environment: where it was computed, in words."""

    format: int
    checkpoint: str
    facts: str
    environment: Mapping[str, str]
    cases: tuple[Case, ...]


class Taken(NamedTuple):
    """A call while it is made."""

    graph: str
    inputs: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Recording:
    """A reference in memory; `origin` says in words where it is from."""

    about: About
    arrays: Mapping[str, Array]
    origin: str

    def named(self, keys: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
        """Arrays by name, of the keys of a call."""
        return {name: self.arrays[key] for name, key in keys.items()}


class Writer:
    """Gathers arrays under their keys."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def key(self, array: NDArray[Any]) -> str:
        """Keep an array; its key."""
        key = _key(array)
        if key not in self.arrays:
            self.arrays[key] = np.array(array, order="C")
        return key

    def keys(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
        """Keep arrays by name; their keys."""
        return {name: self.key(array) for name, array in arrays.items()}

    def save(self, path: Path, about: About) -> None:
        """Write the file in one piece; PackError where that cannot be."""
        text = as_text(as_tree(about)).encode()
        head = {ABOUT: np.frombuffer(text, np.uint8), SEAL: np.frombuffer(hashlib.sha256(text).digest(), np.uint8)}
        try:
            with atomic_output(path, overwrite=True) as temporary:
                write_arrays(temporary, {**self.arrays, **head})
        except OSError as error:
            raise PackError(f"the recording {path} cannot be written: {failure_reason(error)}") from error


def load(path: Path) -> Recording:
    """Read and check a recording.

    Raises PackError for what is none or is damaged, PackVersionError for another format, PackTamperedError where it
    was changed.
    """
    arrays = read_arrays(path)
    if not {ABOUT, SEAL} <= set(arrays):
        raise PackError(f"{path} is no recording of 'pocketprior parity record': it has no '{ABOUT}' and '{SEAL}'")
    text, seal = arrays.pop(ABOUT).tobytes(), arrays.pop(SEAL).tobytes()
    if hashlib.sha256(text).digest() != seal:
        raise _tampered(path, "its text")
    tree = parse(text.decode(errors="replace"), str(path))
    given = cast(dict[str, object], tree).get("format") if isinstance(tree, dict) else None
    if given != FORMAT:
        raise PackVersionError(
            f"{path}: the recording has format {given!r}, this version of pocketprior reads format {FORMAT}; "
            "record it again"
        )
    for key, array in arrays.items():
        if _key(array) != key:
            raise _tampered(path, f"the array {key}")
    about = decode(About, tree, str(path))
    missing = sorted(set(_keys(about)) - set(arrays))
    if missing:
        raise PackError(
            f"the recording {path} lacks {len(missing)} of the arrays that it names; copy or record it again"
        )
    return Recording(about, arrays, f"recorded on {about.environment.get('device', 'an unknown device')}")


def taken(restorer: Restorer, photo: Image, **options: Any) -> tuple[Image, list[Taken]]:
    """What a restorer makes of a photo, and the calls of its graphs in their order."""
    recorder = Recorder()
    graphs = {name: recorder.wrap(name, graph) for name, graph in restorer.graphs.items()}
    restored = Restorer(restorer.manifest, graphs)(photo, **options)
    calls: dict[tuple[str, str], Taken] = {}
    for place, array in recorder.arrays.items():
        graph, number, kind, name = place.split("/")
        call = calls.setdefault((graph, number), Taken(graph, {}, {}))
        (call.inputs if kind == "in" else call.outputs)[name] = array
    return restored, list(calls.values())


def facts_of(manifest: Manifest) -> str:
    """The facts that a recording must share with a pack, as JSON."""
    tree = json.loads(mirror(manifest))
    return as_text({name: tree[name] for name in FIELDS if name in tree})


def _key(array: Array) -> str:
    head = f"{array.dtype.str} {array.shape};".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]


def _keys(about: About) -> Iterable[str]:
    for case in about.cases:
        yield from (case.photo, *case.pictures.values(), *filter(None, (case.clean, case.teacher)))
        for call in (call for calls in case.calls.values() for call in calls):
            yield from (*call.inputs.values(), *call.outputs.values(), *call.kernels.values())


def _tampered(path: Path, what: str) -> PackTamperedError:
    return PackTamperedError(f"the recording {path}: {what} was changed after it was made; copy or record it again")
