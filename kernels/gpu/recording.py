"""The reference of every parity check: what PyTorch makes of photos in exact float32, call by call, on this device.

One file, `recording.npz`, which `runtimes/replay.py` can answer from: the arrays SYSTEM-GRAPH/CALL/in/NAME and
SYSTEM-GRAPH/CALL/out/NAME of every call of every graph, in the split and, where there is one, in the fused form;
photos/PHOTO; pictures/SYSTEM/FORM/PHOTO, the restored ones; and `about`, a JSON text with the device, the versions, the
seed, and for each system the hash of its checkpoints and the facts that the pipeline ran by.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ...core.arrays import Image
from ...core.files import atomic_output
from ...core.manifest import FORMAT, Golden, GraphSpec, Manifest, PackedFile, mirror
from ...core.models.eager import eager
from ...core.models.gen2res import SHIPPED_BASE
from ...core.noise import NOISE_SPEC
from ...core.pack import default_pack
from ...core.pipeline import Graph as Run
from ...core.recording import read_arrays, write_arrays
from ...core.restore import Restorer, graph_names
from ...export.diffir import DiffirSource
from ...export.dtpm import DtpmSource
from ...export.gen2res import Gen2ResSource
from ...export.graphs import Graph
from ...export.source import Opened, Source
from ...runtimes.replay import TARGET, Recorder
from ..select import mode
from .carried import EXAMPLES
from .pieces import FILE_BYTES
from .stage import Item, Setup

__all__ = ["KEY", "LEAST_S", "NAME", "ROW", "Recorded", "items"]

LEAST_S = 20.0
NAME = "recording.npz"
SEED = 2024
GOLDEN = "golden"  # the photo that comes with the embedded pack
DRY_SIDE = 32
PENDING = PackedFile("pending", "0" * 64, 0)  # a draft lists no files


@dataclass(frozen=True)
class Recorded:
    """One system in the recording."""

    system: str
    checkpoint: str  # sha256 over its files
    photos: Mapping[str, str]  # name -> size
    calls: Mapping[str, int]  # of each graph
    difference: Mapping[str, float]  # the largest between what each graph gave here and gives on a CPU


ROW = Recorded
KEY = ("system",)


def items(setup: Setup) -> Iterator[Item]:
    """All systems into one file."""
    yield Item(NAME, partial(_record, setup))


def _sources(root: Path) -> dict[str, Source]:
    checkpoints = root / "checkpoints"
    semantic = str(checkpoints / "semantic" / "model.safetensors")
    return {
        "dtpm": DtpmSource(checkpoints / "cleanup" / "model.safetensors", semantic),
        "diffir": DiffirSource(checkpoints / "diffir" / "model.safetensors"),
        "gen2res": Gen2ResSource(SHIPPED_BASE),
    }


def _photos(setup: Setup) -> dict[str, Image]:
    """The embedded pack's photo, and those that were carried here."""
    golden = read_arrays(default_pack() / "golden" / "photo.npz")["photo"]
    if setup.dry_run:
        return {GOLDEN: golden[:DRY_SIDE, :DRY_SIDE]}
    carried = setup.carried / EXAMPLES
    return {GOLDEN: golden} | (read_arrays(carried) if carried.exists() else {})


def _record(setup: Setup) -> Iterator[Recorded]:
    torch.backends.cudnn.deterministic = True
    photos = _photos(setup)
    recorder = Recorder()
    recorder.arrays |= {f"photos/{name}": photo for name, photo in photos.items()}
    systems: dict[str, object] = {}
    rows = []
    for system, source in _sources(setup.root).items():
        opened, digest = source.open(), source.digest()
        manifest = _draft(system, opened, digest)
        with mode("reference"):
            _restore_all(manifest, opened, photos, recorder, setup.device)
            difference = {name: _difference(system, name, graph, recorder) for name, graph in opened.graphs.items()}
        systems[system] = {"checkpoint": digest, "facts": json.loads(mirror(manifest))}
        calls = {name: recorder.calls[_key(system, name)] for name in opened.graphs}
        sizes = {name: f"{photo.shape[1]} x {photo.shape[0]}" for name, photo in photos.items()}
        rows.append(Recorded(system, digest, sizes, calls, difference))
    about = {"environment": setup.environment, "precision": "float32, TF32 off", "seed": SEED, "systems": systems}
    recorder.arrays["about"] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    with atomic_output(setup.out / NAME, overwrite=True) as temporary:
        write_arrays(temporary, recorder.arrays)
    size = (setup.out / NAME).stat().st_size
    if size > FILE_BYTES:
        raise RuntimeError(f"{NAME} has {size} bytes, more than {FILE_BYTES}; record smaller photos")
    yield from rows


def _draft(system: str, opened: Opened, digest: str) -> Manifest:
    """The facts that a restoration needs, as a manifest without files."""
    specs = {name: GraphSpec(g.inputs, g.outputs, {TARGET: {"fp32": PENDING}}) for name, g in opened.graphs.items()}
    return Manifest(
        format=FORMAT,
        name=system,
        value_range=(0.0, 1.0),
        noise=NOISE_SPEC,
        graphs=specs,
        precision={TARGET: dict.fromkeys(specs, "fp32")},
        parameters={},
        macs_per_pixel={},
        bytes_per_pixel=dict.fromkeys(opened.facts["receptive_field"], 0),
        parity={},
        made_by={"checkpoint": digest},
        card=PENDING,
        golden={"pending": Golden(PENDING, 0, "nothing is packed")},
        **opened.facts,
    )


def _restore_all(
    manifest: Manifest, opened: Opened, photos: Mapping[str, Image], recorder: Recorder, device: str
) -> None:
    """Every photo in every form that there is."""
    for graph in opened.graphs.values():
        graph.module.to(device)
    for form in ("split", "fused") if "fused" in opened.graphs else ("split",):
        graphs = {
            name: recorder.wrap(_key(manifest.model, name), _eager(opened.graphs[name]))
            for name in graph_names(manifest, form)
        }
        restorer = Restorer(manifest, graphs)
        for name, photo in photos.items():
            restored = restorer(photo, seed=SEED)
            recorder.arrays[f"pictures/{manifest.model}/{form}/{name}"] = restored


def _difference(system: str, name: str, graph: Graph, recorder: Recorder) -> float:
    """The largest between what was recorded and what the CPU gives for the same inputs."""
    graph.module.to("cpu")
    largest = 0.0
    for number in range(recorder.calls[_key(system, name)]):
        place = f"{_key(system, name)}/{number}"
        found = _eager(graph)(**{n: recorder.arrays[f"{place}/in/{n}"] for n in graph.inputs})
        for output, values in found.items():
            largest = max(largest, float(np.abs(values - recorder.arrays[f"{place}/out/{output}"]).max()))
    return largest


def _eager(graph: Graph) -> Run:
    return eager(graph.module, list(graph.inputs), *graph.outputs)


def _key(system: str, graph: str) -> str:
    return f"{system}-{graph}"
