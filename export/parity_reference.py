"""The reference of a parity run: what plain PyTorch makes of photos in float32, call by call, and how exact that is."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.arrays import Array, Image
from ..core.errors import UsageError
from ..core.models.deploy.rewrite import eager, mode
from ..core.pack.manifest import Manifest, padded_size, smallest_tile
from ..core.pack.systems import SYSTEMS
from ..core.photo.listing import released_photos
from ..core.restore.pipeline import Graph as Run
from ..core.restore.reference import (
    REFERENCE_FORMAT,
    REPLAY,
    ReferenceCall,
    ReferenceCase,
    ReferenceHeader,
    ReferenceWriter,
    facts_of,
    record_calls,
)
from ..core.restore.restorer import GoldenSettings, Restorer, graph_names
from .systems import SamplingOptions, source_of
from .systems.source import ModelGraph, Opened
from .targets.calibration import damaged_photos
from .writer.facts import draft_manifest

__all__ = ["RecordOptions", "Shot", "device_of", "environment", "exact", "record", "record_shots", "shots"]

_FOLDER_PHOTOS = 4  # that are taken of a folder

# Strengths and amounts, in turn, so that a graph that ignores one shows; the amount is 1 if graphs take none.
_STRENGTHS = ((1.0, 1.0), (0.5, 1.0))
_AMOUNTS = ((1.0, 1.0), (0.5, 1.5), (1.0, 0.5))


@dataclass(frozen=True)
class RecordOptions:
    """How a reference is recorded. Raises UsageError for numbers below 1."""

    side: int = 128  # of the square crops of the photos, pixels
    device: str = "auto"  # "cpu", "cuda", or "auto" for a GPU if there is one
    tile: int | None = None  # edge of the only tiles of the pack, pixels, as in `PackOptions`
    teacher: Path | None = None  # checkpoint that the model is a few-step student of
    teacher_steps: int | None = None  # sampling steps of the teacher; None for its own

    def __post_init__(self) -> None:
        for name in ("side", "tile", "teacher_steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"expected --{name.replace('_', '-')} of 1 or more, got {value}")


@dataclass(frozen=True)
class Shot:
    """A damaged photo that is to be restored with these options."""

    name: str
    photo: Image  # (H, W, 3) uint16
    seed: int
    strength: float
    clean: Image | None = None  # the photo before it was damaged
    amount: float = 1.0


@dataclass(frozen=True)
class _Model:
    """Graphs on a device, and what a restorer needs to know about them."""

    manifest: Manifest
    graphs: Mapping[str, ModelGraph]

    @classmethod
    def on(cls, device: torch.device, opened: Opened) -> _Model:
        for graph in opened.graphs.values():
            graph.module.to(device).eval()
        costs = {
            "parameters": {},
            "macs_per_pixel": {},
            "bytes_per_pixel": dict.fromkeys(opened.facts["receptive_field"], 0),
        }
        return cls(draft_manifest(opened, REPLAY, name="reference", made_by={}, **costs), opened.graphs)

    def restorer(self, form: str) -> Restorer:
        graphs = {name: _eager(self.graphs[name]) for name in graph_names(self.manifest, form)}
        return Restorer(self.manifest, graphs)


def record(
    checkpoint: Path,
    photos: Sequence[Path],
    path: Path,
    options: RecordOptions | None = None,
    sampling: SamplingOptions | None = None,
) -> ReferenceHeader:
    """Record what a checkpoint makes of photos, for `pocketprior parity run`; the facts of the file without its arrays.

    Args:
        checkpoint: A model.safetensors of any system.
        photos: Clean photos, or folders of them, whose first few `val` photos are recorded; the task of the model
            damages them.
        path: The .npz to write.
        options: How to record; None for the defaults.
        sampling: How the model samples, as in `export`.

    Raises:
        UsageError: An option does not fit the model.
        CheckpointError: The checkpoint cannot be read.
    """
    options, sampling = options or RecordOptions(), sampling or SamplingOptions()
    if not path.parent.is_dir():
        raise UsageError(f"-o '{path}' is in a folder that does not exist; make it first")
    source = source_of(checkpoint, sampling)
    opened = source.open() if options.tile is None else source.open().in_tiles(options.tile)
    files = (released_photos(p, split="val")[:_FOLDER_PHOTOS] if p.is_dir() else [p] for p in photos)
    chosen = shots(list(chain.from_iterable(files)), opened, options.side)
    teacher = options.teacher and source_of(options.teacher, replace(sampling, steps=options.teacher_steps)).open()
    return record_shots(opened, source.digest(), chosen, path, device=options.device, teacher=teacher)


def record_shots(
    opened: Opened,
    checkpoint: str,
    chosen: Sequence[Shot],
    path: Path,
    *,
    device: str = "auto",
    teacher: Opened | None = None,
) -> ReferenceHeader:
    """Write the reference of a model, whose checkpoint has this sha256, to `path`, a .npz; what it says.

    Photos are restored in the split and, if there is one, in the fused form. `device` is that of `RecordOptions`,
    `teacher` that of a student. Raises UsageError, PackError.
    """
    if not chosen:
        raise UsageError("no photo was given; a reference needs at least one")
    place, writer = device_of(device), ReferenceWriter()
    with exact(), mode("reference"):
        model = _Model.on(place, opened)
        cases = [_case(model, shot, writer) for shot in chosen]
        cases = _with_rounding(model, cases, writer)
        if teacher is not None:
            restorer = _Model.on(place, teacher).restorer("split")
            images = [writer.key(restorer(writer.arrays[case.photo], **case.settings)) for case in cases]
            cases = [replace(case, teacher=image) for case, image in zip(cases, images, strict=True)]
    if place.type == "cuda":
        with exact(), mode("auto"):
            cases = _with_kernels(model, cases, writer)
    about = ReferenceHeader(REFERENCE_FORMAT, checkpoint, facts_of(model.manifest), environment(place), tuple(cases))
    writer.save(path, about)
    return about


def shots(paths: Sequence[Path], opened: Opened, side: int) -> list[Shot]:
    """The centre of each photo, at most `side` pixels wide and high, damaged by the model's task; seeds are indices.

    Each photo gets a strength and an amount in turn; a single photo is recorded once with each.
    """
    settings = _AMOUNTS if any("amount" in graph.inputs for graph in opened.graphs.values()) else _STRENGTHS
    repeated = [paths[0] for _ in settings] if len(paths) == 1 else list(paths)
    found: list[Shot] = []
    for photo in damaged_photos(repeated, opened.facts["tasks"][0], side):
        strength, amount = settings[photo.seed % len(settings)]
        name = f"{photo.name} {photo.seed}"
        found.append(Shot(name, photo.damaged, photo.seed, strength, photo.clean, amount))
    return found


def _case(model: _Model, shot: Shot, writer: ReferenceWriter) -> ReferenceCase:
    tile = _tile(model.manifest, *shot.photo.shape[:2])
    settings = GoldenSettings(seed=shot.seed, strength=shot.strength, amount=shot.amount)
    calls: dict[str, tuple[ReferenceCall, ...]] = {}
    images: dict[str, str] = {}
    for form in ("split", "fused") if "fused" in model.graphs else ("split",):
        image, made = record_calls(model.restorer(form), shot.photo, **settings, tile=tile)
        keys = ((call.graph, writer.keys(call.inputs), writer.keys(call.outputs)) for call in made)
        calls[form] = tuple(ReferenceCall(*own, {}, {}) for own in keys)
        images[form] = writer.key(image)
    clean = None if shot.clean is None else writer.key(shot.clean)
    return ReferenceCase(
        shot.name, **settings, tile=tile, photo=writer.key(shot.photo), calls=calls, pictures=images, clean=clean
    )


def _tile(manifest: Manifest, height: int, width: int) -> int | None:
    """A tile that cuts the longer side in two if possible, else one for all; None if tiles have a fixed size."""
    if manifest.window(manifest.receptive_field) is not None:
        return None
    forms = [name for name in SYSTEMS[manifest.model].split if name in manifest.receptive_field], ["fused"]
    radius = max(manifest.radius(names) for names in forms if set(names) <= set(manifest.receptive_field))
    side, unit = max(height, width), manifest.size.minimum
    least = smallest_tile(radius, unit)
    # The usable part of a tile grows with its edge: from half way to the whole side, two are enough.
    return (least + side) // 2 // unit * unit if least < side else max(least, padded_size(side, unit))


def _with_rounding(model: _Model, cases: Sequence[ReferenceCase], writer: ReferenceWriter) -> list[ReferenceCase]:
    """The cases, with the distance of each result from the one in float64."""
    exactly = {name: deepcopy(graph.module).double() for name, graph in model.graphs.items()}

    def rounding(call: ReferenceCall) -> ReferenceCall:
        graph = model.graphs[call.graph]
        arrays: dict[str, Any] = {name: writer.arrays[call.inputs[name]].astype(np.float64) for name in graph.inputs}
        truth = eager(exactly[call.graph], list(graph.inputs), *graph.outputs)(**arrays)
        return replace(call, rounding={n: _rmse(writer.arrays[key], truth[n]) for n, key in call.outputs.items()})

    return _each_call(cases, rounding)


def _rmse(given: Array, expected: Array) -> float:
    return math.sqrt(float(np.mean(np.square(given.astype(np.float64) - expected.astype(np.float64)))))


def _with_kernels(model: _Model, cases: Sequence[ReferenceCase], writer: ReferenceWriter) -> list[ReferenceCase]:
    """The cases, with the results of fused kernels where a graph has any: others are equal bit by bit."""
    runs = {name: _eager(graph) for name, graph in model.graphs.items()}

    def fused(call: ReferenceCall) -> ReferenceCall:
        outputs = runs[call.graph](**{name: writer.arrays[key] for name, key in call.inputs.items()})
        equal = all(np.array_equal(array, writer.arrays[call.outputs[name]]) for name, array in outputs.items())
        return call if equal else replace(call, kernels=writer.keys(outputs))

    return _each_call(cases, fused)


def _each_call(cases: Sequence[ReferenceCase], change: Callable[[ReferenceCall], ReferenceCall]) -> list[ReferenceCase]:
    return [
        replace(case, calls={form: tuple(change(call) for call in calls) for form, calls in case.calls.items()})
        for case in cases
    ]


def _eager(graph: ModelGraph) -> Run:
    return eager(graph.module, list(graph.inputs), *graph.outputs)


def device_of(name: str) -> torch.device:
    """The device "cpu", "cuda", or with "auto" a GPU if there is one. Raises UsageError for a missing GPU."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device cuda was given, but PyTorch finds no CUDA device; choose cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@contextmanager
def exact() -> Iterator[None]:
    """Deterministic, without TF32 in matrix products and convolutions, which cuDNN uses by default."""
    flags = (
        (torch.backends.cuda.matmul, "allow_tf32", False),
        (torch.backends.cudnn, "allow_tf32", False),
        (torch.backends.cudnn, "deterministic", True),
    )
    before = [getattr(owner, name) for owner, name, _ in flags]
    try:
        for owner, name, value in flags:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(flags, before, strict=True):
            setattr(owner, name, value)


def environment(device: torch.device) -> dict[str, str]:
    """The device and versions; no date, so that a repeated recording has the same bytes."""
    found = {
        "device": f"CPU ({platform.machine()})",
        "arithmetic": "float32, TF32 off",
        "python": platform.python_version(),
        **_versions("pocketprior", "torch", "numpy"),
    }
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        found |= {
            "device": torch.cuda.get_device_name(device),
            "capability": f"{facts.major}.{facts.minor}",
            "cuda": str(torch.version.cuda),
            **_versions("triton"),
        }
    return found


def _versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that are installed: `scripts/gpu` runs in a clone that is not."""
    found: dict[str, str] = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
