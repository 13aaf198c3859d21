"""The references of parity checks, recorded again: what PyTorch makes of the same photos on this device.

Each system's reference (`REFERENCES`, docs/parity.md) holds the photos, seeds and strengths that it was recorded with,
so that nothing has to be decoded here. What is written is such a file again, SYSTEM.npz.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...core.models.deploy.rewrite import eager
from ...core.models.gen2res import SHIPPED_BASE
from ...export.diffir import DiffirSource
from ...export.dtpm import DtpmSource
from ...export.gen2res import Gen2ResSource
from ...export.parity.record import Shot, record
from ...export.source import Opened, Source
from ...runtimes.parity.graph_replay import sites
from ...runtimes.parity.reference import ParityReference, load
from .pieces import FILE_BYTES
from .stage import Item, Setup

__all__ = ["KEY", "LEAST_S", "REFERENCES", "ROW", "Recorded", "items"]

LEAST_S = 5.0
REFERENCES = Path("checkpoints") / "references"  # in the clone


@dataclass(frozen=True)
class Recorded:
    """One system's recording."""

    system: str
    checkpoint: str  # sha256 over its files
    photos: Mapping[str, str]  # name -> size
    calls: Mapping[str, int]  # of each graph
    difference: Mapping[str, float]  # the largest between what each graph gave here and gives on a CPU


ROW = Recorded
KEY = ("system",)


def items(setup: Setup) -> Iterator[Item]:
    """System by system, a file each."""
    for system, source in _sources(setup.root / "checkpoints").items():
        yield Item(system, partial(_record, setup, system, source))


def _sources(checkpoints: Path) -> dict[str, Source]:
    """The trained systems, as `pocketprior export` samples them unless told otherwise."""
    semantic = str(checkpoints / "semantic" / "model.safetensors")
    return {
        "dtpm": DtpmSource(checkpoints / "cleanup" / "model.safetensors", semantic),
        "diffir": DiffirSource(checkpoints / "diffir" / "model.safetensors"),
        "gen2res": Gen2ResSource(SHIPPED_BASE),
    }


def _record(setup: Setup, system: str, source: Source) -> Iterator[Recorded]:
    name = f"{system}.npz"
    opened, digest = source.open(), source.digest()
    shots = _shots(load(setup.root / REFERENCES / name))
    record(opened, digest, shots, setup.out / name, device=setup.device)
    size = (setup.out / name).stat().st_size
    if size > FILE_BYTES:
        raise RuntimeError(f"{name} has {size} bytes, more than {FILE_BYTES}; record smaller photos")
    written = load(setup.out / name)
    calls = Counter(call.graph for case in written.about.cases for form in case.calls.values() for call in form)
    sizes = {shot.name: f"{shot.photo.shape[1]} x {shot.photo.shape[0]}" for shot in shots}
    yield Recorded(system, digest, sizes, dict(calls), _differences(opened, written))


def _shots(reference: ParityReference) -> list[Shot]:
    """What was recorded, to be recorded again."""
    arrays = reference.arrays
    return [
        Shot(
            case.name,
            arrays[case.photo],
            case.seed,
            case.strength,
            None if case.clean is None else arrays[case.clean],
            case.amount,
        )
        for case in reference.about.cases
    ]


def _differences(opened: Opened, recording: ParityReference) -> dict[str, float]:
    """By graph, the largest between what was recorded and what a CPU gives for the same inputs."""
    largest = dict.fromkeys(opened.graphs, 0.0)
    for graph in opened.graphs.values():
        graph.module.to("cpu")
    for call in (site.call for site in sites(recording)):
        graph = opened.graphs[call.graph]
        found = eager(graph.module, list(graph.inputs), *graph.outputs)(**recording.named(call.inputs))
        for name, values in recording.named(call.outputs).items():
            largest[call.graph] = max(largest[call.graph], float(np.abs(values - found[name]).max()))
    return largest
