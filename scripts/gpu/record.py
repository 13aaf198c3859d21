"""The references of the parity checks, recorded again: what PyTorch makes of the same photos on this device.

Each system's reference in `checkpoints/references` (docs/parity.md) holds the photos, seeds and strengths it was
recorded with. What is written is such a file again, references/SYSTEM.npz in the folder of the results.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pocketprior.core.models.deploy.rewrite import eager
from pocketprior.core.models.gen2res import SHIPPED_BASE
from pocketprior.core.restore.reference import load
from pocketprior.export.parity_reference import Shot, record_shots
from pocketprior.export.systems.diffir import DiffirSource
from pocketprior.export.systems.dtpm import DtpmSource
from pocketprior.export.systems.gen2res import Gen2ResSource
from pocketprior.export.systems.source import CheckpointSource
from pocketprior.runtimes.parity.call_replay import sites

from .command import Row, Setup

REFERENCES = Path("checkpoints") / "references"  # in the clone


def items(setup: Setup) -> Iterator[tuple[str, Iterator[Row]]]:
    """List the trained systems, sampled with the default options of `pocketprior export`."""
    paths = {n: setup.root / "checkpoints" / n / "model.safetensors" for n in ("cleanup", "semantic", "diffir")}
    sources = {
        "dtpm": DtpmSource(paths["cleanup"], str(paths["semantic"])),
        "diffir": DiffirSource(paths["diffir"]),
        "gen2res": Gen2ResSource(SHIPPED_BASE),
    }
    for system, source in sources.items():
        yield system, _record(setup, system, source)


def _record(setup: Setup, system: str, source: CheckpointSource) -> Iterator[Row]:
    """One row: the graph that differs most from what a CPU gives for the same inputs."""
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
    largest = dict.fromkeys(opened.graphs, 0.0)
    for graph in opened.graphs.values():
        graph.module.to("cpu")
    for call in (site.call for site in sites(written)):
        graph = opened.graphs[call.graph]
        found = eager(graph.module, list(graph.inputs), *graph.outputs)(**written.named(call.inputs))
        for name, values in written.named(call.outputs).items():
            largest[call.graph] = max(largest[call.graph], float(np.abs(values - found[name]).max()))
    name, difference = max(largest.items(), key=lambda entry: entry[1])
    made = {"system": system, "checkpoint": digest[:16], "photos": len(shots)}
    yield {**made, "graph": name, "difference": difference}
