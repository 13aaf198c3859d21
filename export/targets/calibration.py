"""What a quantizer knows of a float pack: damaged photos, the calls of its graphs, and the ranges of its arrays."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ...core.arrays import Image
from ...core.degradations import TASKS, Window
from ...core.errors import UsageError
from ...core.pack.int8 import HISTOGRAM_BINS, QuantParams, clip_range, quant_params
from ...core.pack.manifest import Manifest
from ...core.photo.io import read
from ...core.restore.reference import record_calls
from ...core.restore.restorer import FORMS, Restorer, graph_names
from . import BASE_TARGET
from .weights import WeightLayer, initializers, layers_of, load_graphs, uses, weights_digest

__all__ = [
    "DamagedPhoto",
    "FloatPack",
    "GraphInputs",
    "Range",
    "calls",
    "conv_arrays",
    "damaged_photos",
    "forms_of",
    "multiply_adds",
    "open_float",
    "params_of",
    "photos_digest",
    "ranges",
]

GraphInputs = dict[str, NDArray[np.float32]]  # of one call of a graph

_AMOUNTS = (1.0, 1.0, 1.0, 2.0)  # in turn, where the graphs take one: above 1 the arrays inside have larger values
_ANY_DAMAGE = "noise"  # stands for the task of a model that restores any photo: every model removes noise


@dataclass(frozen=True)
class DamagedPhoto:
    """A crop of a clean photo before and after its damage, 16 bits so that 8-bit rounding hides nothing."""

    name: str
    clean: Image  # (H, W, 3) uint16
    damaged: Image  # (H, W, 3) uint16
    seed: int  # of the damage and of the restoration


class Range(NamedTuple):
    """What an array held over all calls."""

    least: float  # start of the range that 8 bits span; zero lies between the two
    largest: float  # its end
    values: int  # number of values in all calls together
    means: tuple[float, ...]  # of each channel


class FloatPack(NamedTuple):
    """A float32 pack, its graphs and layers, and what its arrays held while it restored calibration photos."""

    folder: Path
    manifest: Manifest
    models: Mapping[str, onnx.ModelProto]  # by graph
    layers: Sequence[WeightLayer]
    values: Mapping[str, Mapping[str, Range]]  # graph -> array -> its range
    feeds: Mapping[str, Sequence[GraphInputs]]  # graph -> the calls that the ranges are from
    operations: Mapping[str, int]  # layer -> multiply-adds of its convolutions in these calls

    def by_digest(self, precisions: Mapping[str, str]) -> dict[str, str]:
        """Precisions by layer -> by the digest of its weights, which is the same in every graph and format."""
        return {layer.digest: precisions[layer.name] for layer in self.layers}


def damaged_photos(paths: Sequence[Path], task: str, side: int) -> list[DamagedPhoto]:
    """The centre of each photo, at most `side` pixels wide and high, damaged by `task`; the seed is its index."""
    found: list[DamagedPhoto] = []
    for seed, path in enumerate(paths):
        pixels = read(path).pixels
        (y, height), (x, width) = ((max(0, (edge - side) // 2), min(side, edge)) for edge in pixels.shape[:2])
        square = Window(pixels, y, x, height, width)
        damaged = TASKS.get(task, TASKS[_ANY_DAMAGE]).damage(square, np.random.default_rng(seed))
        clean, spoilt = (np.round(np.clip(i, 0, 1) * 65535).astype(np.uint16) for i in (square.pixels(), damaged))
        found.append(DamagedPhoto(path.stem, clean, spoilt, seed))
    return found


def photos_digest(photos: Sequence[DamagedPhoto]) -> str:
    """sha256 (hex) of the pixels before and after the damage, and of the seeds."""
    together = hashlib.sha256()
    for photo in photos:
        together.update(f"{photo.seed} {photo.clean.shape} ".encode())
        together.update(photo.clean.tobytes() + photo.damaged.tobytes())
    return together.hexdigest()


def forms_of(manifest: Manifest) -> list[str]:
    """The forms of the restoration that a pack has, the one that is run first."""
    return [form for form, graph in zip(FORMS[1:], ("fused", "denoise"), strict=True) if graph in manifest.graphs]


def open_float(folder: Path, photos: Sequence[DamagedPhoto]) -> FloatPack:
    """Read a pack and run it on calibration photos.

    Raises UsageError for a pack that runs in another precision than float32, or whose tasks share their weights.
    """
    manifest = Manifest.load(folder)
    if manifest.further:
        raise UsageError(
            f"the tasks {', '.join(manifest.tasks)} of the pack '{manifest.name}' share their weights; choose the "
            "precision when you export it: pocketprior export CHECKPOINT CHECKPOINT --precision ..."
        )
    coarse = sorted(set(manifest.precision.get(BASE_TARGET, {}).values()) - {"fp32"})
    if coarse:
        raise UsageError(
            f"the pack '{manifest.name}' runs in {', '.join(coarse)}; quantize a pack that runs in float32: export it "
            "with --precision fp32, or with fp32 first"
        )
    models = load_graphs(folder, manifest)
    feeds = calls(manifest, folder, photos)
    values = {name: ranges(model, feeds[name]) for name, model in models.items()}
    layers, counts = layers_of(models, manifest), Counter[str]()
    for name in graph_names(manifest, forms_of(manifest)[0]):
        if name != "predict" or "fused" not in models:  # it is part of the fused graph
            counts += multiply_adds(models[name], values[name])
    operations = {layer.name: counts[layer.digest] for layer in layers}
    return FloatPack(folder, manifest, models, layers, values, feeds, operations)


def calls(manifest: Manifest, folder: Path, photos: Sequence[DamagedPhoto]) -> dict[str, list[GraphInputs]]:
    """The inputs of every graph while the photos are restored: states of real sampling at every noise level."""
    feeds: dict[str, list[GraphInputs]] = {name: [] for name in manifest.graphs}
    for form in forms_of(manifest):
        restorer = Restorer.from_pack(folder, graphs=form, threads=1)
        for photo, amount in zip(photos, cycle(_AMOUNTS if manifest.takes_amount else (1.0,)), strict=False):
            for call in record_calls(restorer, photo.damaged, seed=photo.seed, amount=amount)[1]:
                feeds[call.graph].append(call.inputs)
    return feeds


def ranges(model: onnx.ModelProto, feeds: Sequence[GraphInputs]) -> dict[str, Range]:
    """The range of every array that goes into or comes out of a convolution, over all calls.

    8 bits span what `core.pack.int8.clip_range` chooses from a histogram.
    """
    watched = sorted({name for node in uses(model) if node.op_type == "Conv" for name in conv_arrays(model, node)})
    session = _session(model, watched)
    # Zero is always among the values: borders are padded with it.
    extremes, sums, sizes = dict.fromkeys(watched, (0.0, 0.0)), dict[str, NDArray[np.float64]](), dict[str, int]()
    for name, values in _arrays(session, watched, feeds):
        least, largest = extremes[name]
        extremes[name] = min(least, float(values.min())), max(largest, float(values.max()))
        sums[name] = sums.get(name, 0.0) + values.sum(axis=(0, *range(2, values.ndim)), dtype=np.float64)
        sizes[name] = sizes.get(name, 0) + values.size
    counts = {name: np.zeros(HISTOGRAM_BINS, np.int64) for name in watched}
    for name, values in _arrays(session, watched, feeds):
        counts[name] += np.histogram(values, HISTOGRAM_BINS, extremes[name])[0]
    found: dict[str, Range] = {}
    for name in watched:
        if name in sizes:
            means = sums[name] * len(sums[name]) / sizes[name]
            found[name] = Range(*clip_range(*extremes[name], counts[name]), sizes[name], tuple(means.tolist()))
    return found


def params_of(values: Range) -> QuantParams:
    """Scale and zero point of the integers that hold an array."""
    return quant_params(values.least, values.largest)


def multiply_adds(model: onnx.ModelProto, values: Mapping[str, Range]) -> Counter[str]:
    """Multiply-adds of the convolutions by the digest of their weights, in the calls that `values` are from."""
    weights, found = initializers(model), Counter[str]()
    for node in uses(model):
        if node.op_type == "Conv":
            tensor = weights[node.input[1]]
            positions = values[conv_arrays(model, node)[1]].values // tensor.dims[0]
            found[weights_digest(tensor)] += positions * math.prod(tensor.dims)
    return found


def conv_arrays(model: onnx.ModelProto, node: onnx.NodeProto) -> tuple[str, str]:
    """The arrays before and after a convolution: after its ReLU where nothing else reads what comes before that."""
    following = [other for other in model.graph.node if node.output[0] in other.input]
    results = {value.name for value in model.graph.output}
    rectified = len(following) == 1 and following[0].op_type == "Relu" and node.output[0] not in results
    return node.input[0], following[0].output[0] if rectified else node.output[0]


def _session(model: onnx.ModelProto, watched: Sequence[str]) -> onnxruntime.InferenceSession:
    """The graph with the watched arrays among its outputs."""
    probed = deepcopy(model)
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    added = (name for name in watched if name not in known)
    probed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in added)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # so that sums, and what follows from them, are the same everywhere
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # keeps what is watched
    return onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _arrays(
    session: onnxruntime.InferenceSession, watched: Sequence[str], feeds: Sequence[GraphInputs]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for feed in feeds:
        asked = [name for name in watched if name not in feed]
        made = session.run(asked, dict(feed)) if asked else []
        yield from ((name, np.asarray(values)) for name, values in zip(asked, made, strict=True))
        yield from ((name, feed[name]) for name in watched if name in feed)
