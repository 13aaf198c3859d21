"""A pack at a plan, in a folder, and how far what it restores is from what the float pack restores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from ...core.arrays import Image
from ...core.errors import GraphError, UsageError
from ...core.pack.manifest import Manifest
from ...core.restore.restorer import Restorer, graph_names
from ...core.restore.selftest import GoldenCheck, verify
from ..coreml.palette import PALETTES
from .layers import Layer, initializers, layers_of, load_graphs, weights_digest
from .levels import offered
from .ranges import Range, operations, ranges
from .samples import Feed, Sample, calls, forms_of

__all__ = [
    "FloatPack",
    "Reference",
    "errors",
    "open_float",
    "reference",
    "settle",
    "uniform_levels",
]

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "coreml": "coreml"}  # in which a target is verified
SLACK = 2  # grey levels by which processors may round differently
FLOAT_SLACK = 2  # by which rounding may move a float32 restoration
COARSE_SLACK = 253  # by which fewer bits may: how good they are is for a plan and its budget, and for parity, to say


class FloatPack(NamedTuple):
    """What a quantizer starts from: a pack in float32, its graphs and layers, what its arrays hold.

    values: graph -> array -> its range. feeds: graph -> the calls that they are from. operations: layer ->
    multiply-adds of the convolutions in these calls, in the form in which the pack is run.
    """

    folder: Path
    manifest: Manifest
    models: Mapping[str, onnx.ModelProto]
    layers: Sequence[Layer]
    values: Mapping[str, Mapping[str, Range]]
    feeds: Mapping[str, Sequence[Feed]]
    operations: Mapping[str, int]


class Reference(NamedTuple):
    """What the float pack makes of each sample, in the form in which it is run: (H, W, 3) uint16."""

    samples: Sequence[Sample]
    restored: Sequence[Image]


def open_float(folder: Path, calibration: Sequence[Sample]) -> FloatPack:
    """Read a pack and run it on the calibration samples.

    Raises UsageError for a pack whose tasks share their weights or that is not run in float32, and as `Manifest.load`
    and `load_graphs` do.
    """
    manifest = Manifest.load(folder)
    if manifest.further:
        raise UsageError(
            f"the pack '{manifest.name}' has the tasks {', '.join(manifest.tasks)}, which share their weights; it gets "
            "other precisions when it is exported: pocketprior export CHECKPOINT CHECKPOINT --precision ..."
        )
    coarse = sorted(set(manifest.precision.get("onnx", {}).values()) - {"fp32"})
    if coarse:
        raise UsageError(
            f"the pack '{manifest.name}' is run in {', '.join(coarse)}; quantize a pack that is run in float32: "
            "export it with --precision fp32, or with fp32 first"
        )
    models = load_graphs(folder, manifest)
    feeds = calls(manifest, folder, calibration)
    values = {name: ranges(model, feeds[name]) for name, model in models.items()}
    layers = layers_of(models, manifest)
    return FloatPack(folder, manifest, models, layers, values, feeds, _operations(manifest, models, layers, values))


def _operations(
    manifest: Manifest,
    models: Mapping[str, onnx.ModelProto],
    layers: Sequence[Layer],
    values: Mapping[str, Mapping[str, Range]],
) -> dict[str, int]:
    by_digest: dict[str, int] = {}
    for graph in graph_names(manifest, forms_of(manifest)[0]):
        if graph == "predict" and "fused" in models:
            continue  # it is in the fused graph
        weights = initializers(models[graph])
        for name, count in operations(models[graph], values[graph]).items():
            digest = weights_digest(weights[name])
            by_digest[digest] = by_digest.get(digest, 0) + count
    return {layer.name: by_digest.get(layer.digest, 0) for layer in layers}


def reference(folder: Path, samples: Sequence[Sample]) -> Reference:
    """Restore the samples with the pack in `folder`."""
    restorer = Restorer.from_pack(folder, graphs=forms_of(Manifest.load(folder))[0], threads=1)
    return Reference(samples, [restorer(sample.damaged, seed=sample.seed) for sample in samples])


def uniform_levels(layers: Sequence[Layer], level: str) -> dict[str, str]:
    """Every layer at one level, of LEVELS or PALETTES; what cannot have int8 has w8, what cannot have w4 has w8."""
    return {layer.name: level if level in (*offered(layer), *PALETTES) else "w8" for layer in layers}


def settle(folder: Path, manifest: Manifest, made_by: Mapping[str, str]) -> None:
    """Measure how far the golden restorations are from those of the checkpoint, for each target, and allow for that.

    made_by: what is added to the fields of that name. Raises GraphError where they are further than their numbers
    explain: float32 further than rounding is, fewer bits so far that little is left of the restoration.
    """
    loose = {name: dataclasses.replace(golden, tolerance=255) for name, golden in manifest.golden.items()}
    facts = {**manifest.made_by, **made_by}
    dataclasses.replace(manifest, golden=loose, made_by=facts).save(folder)
    checks = {target: verify(folder, RUNTIMES[target]).goldens for target in manifest.precision}
    found = {
        name: max(check.difference for c in checks.values() for check in c if check.name == name) for name in loose
    }
    for target, run in manifest.precision.items():
        _check_close(target, set(run.values()), max(check.difference for check in checks[target]))
    golden = {
        name: dataclasses.replace(
            golden,
            tolerance=found[name] + SLACK,
            reason=f"the graphs were {found[name]} levels from PyTorch float32 when they were made; processors round "
            "differently",
        )
        for name, golden in loose.items()
    }
    parity = {**manifest.parity, **{target: _largest(checks[target]) for target in checks}}
    dataclasses.replace(manifest, golden=golden, made_by=facts, parity=parity).save(folder)


def _check_close(target: str, labels: set[str], found: int) -> None:
    exact = labels <= {"fp32"}
    most = FLOAT_SLACK if exact else COARSE_SLACK
    if found > most:
        advice = "the model cannot be packed: report it, with its configuration" if exact else "choose other levels"
        raise GraphError(
            f"the {target} graphs ({', '.join(sorted(labels))}) are {found} grey levels from PyTorch, at most {most} "
            f"can be allowed; {advice}"
        )


def _largest(checks: Sequence[GoldenCheck]) -> dict[str, float]:
    return {"golden_max_level_error": float(max(check.difference for check in checks))}


def errors(
    folder: Path, truth: Reference, runtime: str = "onnxruntime", form: str | None = None, arithmetic: str | None = None
) -> list[float]:
    """Mean squared difference of each restored sample from that of the float pack, on the scale 0 to 1."""
    form = form or forms_of(Manifest.load(folder))[0]
    restorer = Restorer.from_pack(folder, runtime, form, threads=1, arithmetic=arithmetic)
    return [
        _difference(restorer(sample.damaged, seed=sample.seed), restored)
        for sample, restored in zip(truth.samples, truth.restored, strict=True)
    ]


def _difference(a: Image, b: Image) -> float:
    return float(np.mean(np.square((a.astype(np.float64) - b.astype(np.float64)) / np.iinfo(a.dtype).max)))
