"""Write a pack: graphs, manifest, golden restoration, model card. The same checkpoint gives the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from ..core.arrays import Image
from ..core.degradations import TASKS
from ..core.errors import PhotoWriteError, UnknownNameError
from ..core.image import read
from ..core.manifest import FORMAT, Conditions, Golden, GraphSpec, Manifest, PackedFile, Size, mirror
from ..core.models import checkpoints
from ..core.models.dtpm import Dtpm, DtpmConfig
from ..core.models.eager import eager
from ..core.models.semantic import SemanticConfig, SemanticEncoder
from ..core.noise import NOISE_SPEC
from ..core.pack import packed_file
from ..core.restore import Restorer
from ..core.schedule import SCHEDULES, trailing
from ..core.verify import verify, write_golden
from .calibrate import Feed, record
from .card import card
from .graphs import Graph, Sampling, dtpm_graphs, receptive_field
from .measure import bytes_per_pixel, macs_per_pixel, parameters
from .quantize import int8
from .to_onnx import convert

__all__ = ["PRECISIONS", "Sources", "golden_photo", "write_pack"]

PRECISIONS = ("fp32", "int8")
FLOAT_GRAPHS = ("encode",)  # graphs that stay in float at any precision: run once per photo, on a thumbnail
GOLDEN_SIDE = 96  # pixels; the packed restoration is a crop of this size
GOLDEN_SEED = 2024
INT8_SLACK = 2  # grey levels that another processor may differ by


@dataclass(frozen=True)
class Sources:
    """The checkpoints that a pack is made of."""

    model: Path
    semantic: Path

    def load(self) -> tuple[Dtpm, SemanticEncoder, str]:
        """The model, the encoder and the task. Raises CheckpointError."""
        checkpoint = checkpoints.load(self.model, "dtpm")
        model = Dtpm(checkpoints.from_dict(DtpmConfig, checkpoint.config))
        model.load_state_dict(checkpoint.tensors)
        semantic = checkpoints.load(self.semantic, "semantic")
        encoder = SemanticEncoder(checkpoints.from_dict(SemanticConfig, semantic.config))
        encoder.load_state_dict(semantic.part("encoder"))
        return model.eval(), encoder.eval(), checkpoint.facts["task"]

    def digest(self) -> str:
        """sha256 over both files."""
        both = hashlib.sha256()
        for path in (self.model, self.semantic):
            both.update(path.read_bytes())
        return both.hexdigest()


def write_pack(
    sources: Sources,
    folder: Path,
    *,
    name: str,
    steps: int,
    gain: float,
    precision: str,
    photos: Sequence[Path],
) -> Manifest:
    """Export a DTPM to `folder`, which appears whole or not at all.

    steps: of the sampler. gain: share of the residual that is added at strength 1. precision: one of PRECISIONS.
    photos: clean ones; the first gives the golden restoration, all calibrate int8. Raises UnknownNameError,
    CheckpointError, PhotoWriteError when `folder` exists.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if folder.exists():
        raise PhotoWriteError(f"{folder} exists already; remove it or choose another folder with -o")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        draft = Path(temporary) / folder.name
        draft.mkdir()
        manifest = _fill(draft, sources, name, steps, gain, precision, photos)
        shutil.move(draft, folder)
    return manifest


def _fill(
    folder: Path, sources: Sources, name: str, steps: int, gain: float, precision: str, photos: Sequence[Path]
) -> Manifest:
    model, encoder, task = sources.load()
    levels, times = trailing(steps, SCHEDULES[model.config.schedule]())
    sampling = Sampling(tuple(levels), tuple(times), gain)
    graphs = dtpm_graphs(model, encoder, sampling)
    facts = _facts(graphs, model, sampling)
    draft = _draft(graphs, facts, name=name, task=task, model=model, sampling=sampling, digest=sources.digest())
    feeds = record(model, encoder, sampling, photos, task=task) if precision == "int8" else {}
    files = {
        graph: _write_graph(folder, graph, graphs[graph], draft, precision, feeds.get(graph, ())) for graph in graphs
    }
    (folder / "CARD.md").write_text(card(draft, precision), encoding="utf-8")
    finished = dataclasses.replace(
        draft,
        graphs={
            graph: dataclasses.replace(spec, files={"onnx": {files[graph][0]: files[graph][1]}})
            for graph, spec in draft.graphs.items()
        },
        precision={"onnx": {graph: files[graph][0] for graph in graphs}},
        card=packed_file(folder, "CARD.md"),
    )
    _add_golden(folder, finished, graphs, golden_photo(photos[0], task))
    return Manifest.load(folder)


def _facts(graphs: Mapping[str, Graph], model: Dtpm, sampling: Sampling) -> dict[str, Any]:
    """What is counted or measured per graph. The fused reach is the sum of its parts' (an upper bound)."""
    multiple = model.denoiser.unet.multiple_of
    reach = {name: receptive_field(graphs[name], multiple, reach=64) for name in ("predict", "denoise")}
    reach["fused"] = reach["predict"] + len(sampling.times) * reach["denoise"]
    return {
        "receptive_field": reach,
        "parameters": {name: parameters(graph) for name, graph in graphs.items()},
        "macs_per_pixel": {name: macs_per_pixel(graphs[name]) for name in reach},
        "bytes_per_pixel": {name: bytes_per_pixel(graphs[name]) for name in reach},
    }


def _draft(
    graphs: Mapping[str, Graph],
    facts: Mapping[str, Any],
    *,
    name: str,
    task: str,
    model: Dtpm,
    sampling: Sampling,
    digest: str,
) -> Manifest:
    """The manifest but for its files: placeholders stand where hashes come."""
    multiple = model.denoiser.unet.multiple_of
    pending = PackedFile("pending", "0" * 64, 0)
    return Manifest(
        format=FORMAT,
        name=name,
        model="dtpm",
        tasks=(task,),
        value_range=(0.0, 1.0),
        size=Size(multiple_of=multiple, minimum=multiple),
        sampler="ddim",
        predicts="v",
        start="noise",
        levels=sampling.levels,
        times=sampling.times,
        noise=NOISE_SPEC,
        state=(1, 3, "h", "w"),
        residual_scale=float(model.residual_scale),
        gain=sampling.gain,
        conditions=Conditions(thumbnail=model.config.semantic.size),
        graphs={n: GraphSpec(g.inputs, g.outputs, {"onnx": {"fp32": pending}}) for n, g in graphs.items()},
        precision={"onnx": dict.fromkeys(graphs, "fp32")},
        parity={},
        made_by={
            "checkpoint": digest,
            "onnxruntime": onnxruntime.__version__,
            "pocketprior": version("pocketprior"),
            "torch": torch.__version__.split("+")[0],
        },
        card=pending,
        golden={"pending": Golden(pending, 0, "pending")},
        **facts,
    )


def _write_graph(
    folder: Path, name: str, graph: Graph, draft: Manifest, precision: str, feeds: Sequence[Feed]
) -> tuple[str, PackedFile]:
    """Convert one graph; returns the precision it really has and its file."""
    metadata = {"pocketprior.graph": name, "pocketprior.manifest": mirror(draft)}
    if precision == "fp32" or name in FLOAT_GRAPHS:
        convert(graph, folder / f"{name}.onnx", multiple=draft.size.multiple_of, metadata=metadata)
        return "fp32", packed_file(folder, f"{name}.onnx")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{name}.onnx"
        convert(graph, source, multiple=draft.size.multiple_of, metadata=metadata)
        int8(source, folder / f"{name}.int8.onnx", feeds)
    return "int8", packed_file(folder, f"{name}.int8.onnx")


def _add_golden(folder: Path, manifest: Manifest, graphs: Mapping[str, Graph], photo: Image) -> None:
    """Record what the checkpoint makes of `photo` and how far the packed graphs are from it, and save the manifest."""
    reference = Restorer(manifest, {n: eager(g.module, list(g.inputs), *g.outputs) for n, g in graphs.items()})
    restored = reference(photo, seed=GOLDEN_SEED)
    file = write_golden(folder, "golden/photo.npz", photo=photo, seed=GOLDEN_SEED, strength=1.0, restored=restored)
    dataclasses.replace(manifest, golden={"photo": Golden(file, 255, "not measured yet")}).save(folder)
    found = max(check.difference for check in verify(folder).goldens)
    exact = set(manifest.precision["onnx"].values()) == {"fp32"}
    if exact:
        golden = Golden(file, max(1, found), "float32 graphs differ from PyTorch by rounding only")
    else:
        reason = f"int8 graphs were {found} levels from PyTorch float32 at export; processors round int8 differently"
        golden = Golden(file, found + INT8_SLACK, reason)
    parity = {"onnx": {"golden_max_level_error": float(found)}}
    dataclasses.replace(manifest, golden={"photo": golden}, parity=parity).save(folder)


def golden_photo(path: Path, task: str) -> Image:
    """The centre of a clean photo, damaged by the task with a fixed seed: (96, 96, 3) uint8."""
    pixels = read(path).pixels
    y, x = ((side - GOLDEN_SIDE) // 2 for side in pixels.shape[:2])
    square = pixels[y : y + GOLDEN_SIDE, x : x + GOLDEN_SIDE].astype(np.float32) / np.iinfo(pixels.dtype).max
    damaged = TASKS[task](square.astype(np.float32), np.random.default_rng(GOLDEN_SEED))
    return np.round(damaged * 255).astype(np.uint8)
