"""The references of the parity checks, recorded again: what PyTorch makes of the same photos on this device.

Each system's reference in `checkpoints/references` (docs/parity.md) holds the photos, seeds and strengths it was
recorded with. What is written is such a file again, references/SYSTEM.npz in the folder of the results.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from pocketprior.core.models.deploy.rewrite import eager
from pocketprior.core.models.gen2res import SHIPPED_BASE
from pocketprior.core.restore.reference import ParityReference, load
from pocketprior.export.parity_reference import Shot, record_shots
from pocketprior.export.systems.diffir import DiffirSource
from pocketprior.export.systems.dtpm import DtpmSource
from pocketprior.export.systems.gen2res import Gen2ResSource
from pocketprior.export.systems.source import CheckpointSource, Opened
from pocketprior.runtimes.parity.graph_replay import sites

from .results import Item, Row, Setup

__all__ = ["REFERENCES", "items"]

REFERENCES = Path("checkpoints") / "references"  # in the clone


def items(setup: Setup) -> Iterator[Item]:
    """List the trained systems, sampled with the default options of `pocketprior export`."""
    checkpoints = setup.root / "checkpoints"
    semantic = str(checkpoints / "semantic" / "model.safetensors")
    sources = {
        "dtpm": DtpmSource(checkpoints / "cleanup" / "model.safetensors", semantic),
        "diffir": DiffirSource(checkpoints / "diffir" / "model.safetensors"),
        "gen2res": Gen2ResSource(SHIPPED_BASE),
    }
    for system, source in sources.items():
        yield Item(system, partial(_record, setup, system, source))


def _record(setup: Setup, system: str, source: CheckpointSource) -> Iterator[Row]:
    known = load(setup.root / REFERENCES / f"{system}.npz")
    arrays = known.arrays
    shots = [
        Shot(c.name, arrays[c.photo], c.seed, c.strength, None if c.clean is None else arrays[c.clean], c.amount)
        for c in known.about.cases
    ]
    opened, digest, path = source.open(), source.digest(), setup.out / "references" / f"{system}.npz"
    path.parent.mkdir(exist_ok=True)
    record_shots(opened, digest, shots, path, device=setup.device)
    written = load(path)
    differences = _differences(opened, written)
    graph = max(differences, key=differences.__getitem__)
    yield {
        "system": system,
        "checkpoint": digest[:16],
        "photos": len(shots),
        "graph": graph,  # that differs most from a CPU
        "difference": differences[graph],
    }


def _differences(opened: Opened, reference: ParityReference) -> dict[str, float]:
    """By graph, the largest difference between what was recorded and what a CPU gives for the same inputs."""
    largest = dict.fromkeys(opened.graphs, 0.0)
    for graph in opened.graphs.values():
        graph.module.to("cpu")
    for call in (site.call for site in sites(reference)):
        graph = opened.graphs[call.graph]
        found = eager(graph.module, list(graph.inputs), *graph.outputs)(**reference.named(call.inputs))
        for name, values in reference.named(call.outputs).items():
            largest[call.graph] = max(largest[call.graph], float(np.abs(values - found[name]).max()))
    return largest
