"""What a checkpoint makes of photos in PyTorch, in float32: every graph call, the pictures, and how exact that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.arrays import Image
from ...core.errors import UsageError
from ...core.models.deploy.rewrite import eager
from ...core.pack.manifest import MANIFEST_FORMAT
from ...core.pack.manifest import Golden, GraphSpec, Manifest, PackedFile
from ...core.pack.size import padded_size
from ...core.pack.systems import SYSTEMS
from ...core.restore.pipeline import Graph as Run
from ...core.restore.restorer import GoldenSettings, Restorer, graph_names
from ...core.restore.tiles import smallest_tile
from ...core.sampling.noise import NOISE_SPEC
from ...kernels.select import mode
from ...runtimes.parity.measures import measure
from ...runtimes.parity.reference import (
    REFERENCE_FORMAT,
    RecordedCall,
    ReferenceCall,
    ReferenceCase,
    ReferenceHeader,
    ReferenceWriter,
    facts_of,
    record_calls,
)
from ...runtimes.replay import TARGET
from ..graphs import Graph
from ..source import Opened
from .exact import device_of, environment, exact

__all__ = ["Shot", "record"]

PENDING = PackedFile("pending", "0" * 64, 0)  # a reference has no files


@dataclass(frozen=True)
class Shot:
    """A damaged photo, (H, W, 3) uint16, that is to be restored with these options; clean: before it was damaged."""

    name: str
    photo: Image
    seed: int
    strength: float
    clean: Image | None = None
    amount: float = 1.0


@dataclass(frozen=True)
class _Model:
    """Graphs on a device, and what a restorer needs to know about them."""

    manifest: Manifest
    graphs: Mapping[str, Graph]

    def restorer(self, form: str) -> Restorer:
        graphs = {name: _eager(self.graphs[name]) for name in graph_names(self.manifest, form)}
        return Restorer(self.manifest, graphs)

    @property
    def forms(self) -> tuple[str, ...]:
        return ("split", "fused") if "fused" in self.graphs else ("split",)


def record(
    opened: Opened,
    checkpoint: str,
    chosen: Sequence[Shot],
    path: Path,
    *,
    device: str = "auto",
    teacher: Opened | None = None,
) -> ReferenceHeader:
    """Write the recording of a model to `path`; what stands in it.

    checkpoint: its sha256. chosen: what is restored, in the split and, where there is one, in the fused form. device:
    "cpu", "cuda", or "auto" for a GPU if there is one. teacher: of a student. Raises UsageError, PackError.
    """
    if not chosen:
        raise UsageError("no photo was given; a recording needs at least one")
    place, writer = device_of(device), ReferenceWriter()
    with exact(), mode("reference"):
        model = _model(opened, place)
        cases = [_case(model, shot, writer) for shot in chosen]
        cases = _with_rounding(model, cases, writer)
        if teacher is not None:
            cases = _with_teacher(_model(teacher, place), cases, writer)
    if place.type == "cuda":
        with exact(), mode("auto"):
            cases = _with_kernels(model, cases, writer)
    about = ReferenceHeader(REFERENCE_FORMAT, checkpoint, facts_of(model.manifest), environment(place), tuple(cases))
    writer.save(path, about)
    return about


def _model(opened: Opened, place: torch.device) -> _Model:
    """On its device, with the facts that a restoration needs, as a manifest without files."""
    for graph in opened.graphs.values():
        graph.module.to(place).eval()
    specs = {name: GraphSpec(g.inputs, g.outputs, {TARGET: {"fp32": PENDING}}) for name, g in opened.graphs.items()}
    manifest = Manifest(
        format=MANIFEST_FORMAT,
        name="reference",
        value_range=(0.0, 1.0),
        noise=NOISE_SPEC,
        graphs=specs,
        precision={TARGET: dict.fromkeys(specs, "fp32")},
        parameters={},
        macs_per_pixel={},
        bytes_per_pixel=dict.fromkeys(opened.facts["receptive_field"], 0),
        parity={},
        made_by={},
        card=PENDING,
        golden={"pending": Golden(PENDING, 0, "nothing is packed")},
        **opened.facts,
    )
    return _Model(manifest, opened.graphs)


def _case(model: _Model, shot: Shot, writer: ReferenceWriter) -> ReferenceCase:
    """One photo in every form."""
    tile = _tile(model.manifest, *shot.photo.shape[:2])
    settings = GoldenSettings(seed=shot.seed, strength=shot.strength, amount=shot.amount)
    calls: dict[str, tuple[ReferenceCall, ...]] = {}
    pictures: dict[str, str] = {}
    for form in model.forms:
        picture, made = record_calls(model.restorer(form), shot.photo, **settings, tile=tile)
        calls[form] = tuple(_call(call, writer) for call in made)
        pictures[form] = writer.key(picture)
    clean = None if shot.clean is None else writer.key(shot.clean)
    return ReferenceCase(
        shot.name, **settings, tile=tile, photo=writer.key(shot.photo), calls=calls, pictures=pictures, clean=clean
    )


def _call(call: RecordedCall, writer: ReferenceWriter) -> ReferenceCall:
    return ReferenceCall(call.graph, writer.keys(call.inputs), writer.keys(call.outputs), {}, {})


def _tile(manifest: Manifest, height: int, width: int) -> int | None:
    """A tile that cuts the longer side in two where that can be, else one for all; None where tiles have one size."""
    if manifest.window(manifest.receptive_field) is not None:
        return None
    forms = [name for name in SYSTEMS[manifest.model].split if name in manifest.receptive_field], ["fused"]
    reach = max(manifest.radius(names) for names in forms if set(names) <= set(manifest.receptive_field))
    side, unit = max(height, width), manifest.size.minimum
    least = smallest_tile(reach, unit)
    # What a tile gets done grows as its edge does: from half way to the whole side, two are enough.
    return (least + side) // 2 // unit * unit if least < side else max(least, padded_size(side, unit))


def _with_rounding(model: _Model, cases: Sequence[ReferenceCase], writer: ReferenceWriter) -> list[ReferenceCase]:
    """The cases, with the distance of each result from that in float64."""
    exactly = {name: deepcopy(graph.module).double() for name, graph in model.graphs.items()}

    def rounding(call: ReferenceCall) -> ReferenceCall:
        graph = model.graphs[call.graph]
        arrays: dict[str, Any] = {name: writer.arrays[call.inputs[name]].astype(np.float64) for name in graph.inputs}
        truth = eager(exactly[call.graph], list(graph.inputs), *graph.outputs)(**arrays)
        return replace(
            call, rounding={n: measure(writer.arrays[key], truth[n]).rmse for n, key in call.outputs.items()}
        )

    return _each_call(cases, rounding)


def _with_kernels(model: _Model, cases: Sequence[ReferenceCase], writer: ReferenceWriter) -> list[ReferenceCase]:
    """The cases, with what fused kernels give; without, for a graph that has none: its results are equal bit by bit."""
    runs = {name: _eager(graph) for name, graph in model.graphs.items()}

    def fused(call: ReferenceCall) -> ReferenceCall:
        outputs = runs[call.graph](**{name: writer.arrays[key] for name, key in call.inputs.items()})
        equal = all(np.array_equal(array, writer.arrays[call.outputs[name]]) for name, array in outputs.items())
        return call if equal else replace(call, kernels=writer.keys(outputs))

    return _each_call(cases, fused)


def _with_teacher(master: _Model, cases: Sequence[ReferenceCase], writer: ReferenceWriter) -> list[ReferenceCase]:
    """The cases, with the teacher's pictures."""
    restorer = master.restorer("split")
    return [replace(case, teacher=writer.key(restorer(writer.arrays[case.photo], **case.settings))) for case in cases]


def _each_call(cases: Sequence[ReferenceCase], change: Callable[[ReferenceCall], ReferenceCall]) -> list[ReferenceCase]:
    return [
        replace(case, calls={form: tuple(change(call) for call in calls) for form, calls in case.calls.items()})
        for case in cases
    ]


def _eager(graph: Graph) -> Run:
    return eager(graph.module, list(graph.inputs), *graph.outputs)
