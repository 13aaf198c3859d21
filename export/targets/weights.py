"""The weights that can be quantized, found in ONNX graphs, and their arithmetic: the same numbers for every target.

A layer has one precision:

    fp32    as trained
    fp16    weights rounded to float16, computed with in float
    w8      weights in 8 bits, symmetric per output channel, computed with in float
    w4      weights in 4 bits, symmetric per group of whole kernels, up to 72 weights, computed with in float
    int8    weights as in w8, inputs and outputs in 8 bits, asymmetric per array: integer arithmetic
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ...core.errors import PackError, UsageError
from ...core.pack.int8 import MIN_WEIGHTS
from ...core.pack.manifest import Manifest
from ...core.pack.store import check_file
from . import BASE_TARGET, WEIGHT_PRECISIONS

__all__ = [
    "QuantizedWeights",
    "WeightLayer",
    "array_digest",
    "bias_shift",
    "channel_axis",
    "channels_first",
    "dequantize",
    "graph_precisions",
    "initializers",
    "layer_bytes",
    "layers_of",
    "load_graphs",
    "offered",
    "quantize_weights",
    "uniform_precisions",
    "uses",
    "weights_digest",
]

GROUP = 72  # weights: the most with one 4-bit scale, 3x3 of 8 input channels
_BITS = {"fp32": 32, "fp16": 16, "w8": 8, "w4": 4, "int8": 8}
_CLIPS = np.linspace(0.7, 1.0, 13)  # shares of the largest weight that 4 bits may span; the best one is taken
_KINDS = ("Conv", "Gemm", "MatMul")


class WeightLayer(NamedTuple):
    """Weights that are quantized together, however many graphs and sampling steps use them."""

    name: str  # "graph/weights", as the first graph that has them calls them
    digest: str  # sha256 (hex) of the float32 weights, by which they are found in every graph
    shape: tuple[int, ...]
    axis: int  # that of the output channels
    graphs: tuple[str, ...]  # those that hold the weights
    spatial: bool  # a convolution over an image, where integer arithmetic pays

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


class QuantizedWeights(NamedTuple):
    """Weights as `q * scale`, a row per output channel (8 bits) or per group (4 bits)."""

    q: NDArray[np.int8]  # (rows, n)
    scale: NDArray[np.float32]  # (rows, 1)


def load_graphs(folder: Path, manifest: Manifest) -> dict[str, onnx.ModelProto]:
    """The float32 ONNX graphs of the pack in `folder`.

    Raises UsageError for a pack without them, PackTamperedError for a file that is not the one that was packed.
    """
    models: dict[str, onnx.ModelProto] = {}
    for name, spec in manifest.graphs.items():
        packed = spec.files.get(BASE_TARGET, {}).get("fp32")
        if packed is None:
            raise UsageError(
                f"the pack '{manifest.name}' has no float32 ONNX file of the graph '{name}'; quantize a pack that was "
                "exported with --precision fp32"
            )
        for file in (packed, *spec.parts.get(BASE_TARGET, {}).get("fp32", ())):
            check_file(folder, file)
        models[name] = onnx.load(folder / packed.file)
    return models


def layers_of(models: Mapping[str, onnx.ModelProto], manifest: Manifest) -> list[WeightLayer]:
    """Every layer, in the order of the graphs and their nodes. Raises PackError for a pack without any."""
    found: dict[str, WeightLayer] = {}
    # Parts name a layer before the fused graph, which has them all.
    for graph, model in sorted(models.items(), key=lambda item: item[0] == "fused"):
        weights = initializers(model)
        for node in uses(model):
            tensor = weights[node.input[1]]
            digest, shape = weights_digest(tensor), tuple(tensor.dims)
            spatial = manifest.graphs[graph].spatial and node.op_type == "Conv"
            name = f"{graph}/{tensor.name.removesuffix('.weight').rstrip('_')}"
            known = found.get(digest) or WeightLayer(name, digest, shape, channel_axis(node, len(shape)), (), False)
            graphs = known.graphs if graph in known.graphs else (*known.graphs, graph)
            found[digest] = known._replace(graphs=graphs, spatial=known.spatial or spatial)
    if not found:
        raise PackError(
            f"the pack '{manifest.name}' has no layer with {MIN_WEIGHTS} weights or more; nothing to quantize"
        )
    return list(found.values())


def uses(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes whose second input is the weights of a layer."""
    large = {name for name, tensor in initializers(model).items() if math.prod(tensor.dims) >= MIN_WEIGHTS}
    return (node for node in model.graph.node if node.op_type in _KINDS and node.input[1] in large)


def channel_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """The axis of the output channels in the weights of a node."""
    if node.op_type == "MatMul":
        return dimensions - 1
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Constants of the graph by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def weights_digest(tensor: onnx.TensorProto) -> str:
    """`array_digest` of the weights."""
    return array_digest(numpy_helper.to_array(tensor))


def array_digest(weights: NDArray[np.float32]) -> str:
    """sha256 (hex) of the shape and the float32 weights."""
    return hashlib.sha256(f"{list(weights.shape)} ".encode() + weights.tobytes()).hexdigest()


def graph_precisions(model: onnx.ModelProto, by_digest: Mapping[str, str]) -> dict[str, str]:
    """Precisions by digest -> precisions by the name of the weights in this graph."""
    weights = initializers(model)
    return {node.input[1]: by_digest[weights_digest(weights[node.input[1]])] for node in uses(model)}


def offered(layer: WeightLayer) -> tuple[str, ...]:
    """The precisions that a layer can have: int8 is for convolutions over images, 4-bit weights come in pairs."""
    possible = {"int8": layer.spatial, "w4": layer.parameters % 2 == 0}
    return tuple(precision for precision in WEIGHT_PRECISIONS if possible.get(precision, True))


def uniform_precisions(layers: Sequence[WeightLayer], precision: str) -> dict[str, str]:
    """Every layer at one precision, palettes included; a layer that cannot have it gets "w8"."""
    unlimited = precision not in WEIGHT_PRECISIONS
    return {layer.name: precision if unlimited or precision in offered(layer) else "w8" for layer in layers}


def layer_bytes(layer: WeightLayer, precision: str) -> int:
    """Size of the weights and scales in one file; biases always stay in float and don't count."""
    channels = layer.shape[layer.axis]
    group = _group(layer.parameters // channels, math.prod(layer.shape[2:]))
    scales = {"w8": channels * 4, "int8": channels * 4, "w4": layer.parameters // group * 2}
    return layer.parameters * _BITS[precision] // 8 + scales.get(precision, 0)


def quantize_weights(weights: NDArray[np.float32], precision: str, axis: int = 0) -> QuantizedWeights:
    """Quantize float weights to 8 bits ("w8", "int8") or 4 ("w4"); output channels are the axis 0, or 1 of a matrix."""
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    if precision == "w4":
        return _four_bits(rows.reshape(-1, _group(rows.shape[1], math.prod(weights.shape[2:]))))
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scale = (np.maximum(largest, np.finfo(np.float32).tiny * 127) / 127).astype(np.float32)
    return QuantizedWeights(np.clip(np.round(rows / scale), -127, 127).astype(np.int8), scale)


def channels_first(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape of weights whose output channels, at `axis`, have become the first axis."""
    return (shape[axis], *shape[:axis], *shape[axis + 1 :])


def dequantize(weights: QuantizedWeights, shape: tuple[int, ...], axis: int = 0) -> NDArray[np.float32]:
    """The float weights that a runtime computes with."""
    rows = (weights.q.astype(np.float32) * weights.scale).reshape(channels_first(shape, axis))
    return np.ascontiguousarray(np.moveaxis(rows, 0, axis))


def bias_shift(change: NDArray[np.float32], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a change (O, I / groups, ...) of a convolution's weights adds to the mean of each output channel, (O).

    `means` are those of the input channels, (I). Padded borders are treated like the rest of the image.
    """
    per_group = change.shape[1]
    kernels = change.reshape(len(means) // per_group, -1, per_group, math.prod(change.shape[2:])).sum(axis=3)
    return np.einsum("goi,gi->go", kernels, means.reshape(-1, per_group)).reshape(-1)


def _four_bits(rows: NDArray[np.float32]) -> QuantizedWeights:
    """-7 to 7 times a float16 scale: of a few scales the one with the least squared error in the group."""
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-6)
    best = np.full((len(rows), 1), np.inf)
    q, scales = np.zeros(rows.shape, np.int8), np.ones((len(rows), 1), np.float32)
    for clip in _CLIPS:
        scale = (largest * clip / 7).astype(np.float16).astype(np.float32)
        scale = np.maximum(scale, np.float32(2.0**-24))  # the smallest float16
        candidate = np.clip(np.round(rows / scale), -7, 7)
        error = np.square(candidate * scale - rows).sum(axis=1, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        q, scales = np.where(better, candidate, q).astype(np.int8), np.where(better, scale, scales)
    return QuantizedWeights(q, scales.astype(np.float32))


def _group(row: int, kernel: int) -> int:
    """The largest divisor of a row that is at most GROUP and holds whole kernels; at least one kernel."""
    return max((size for size in range(kernel, GROUP + 1, kernel) if row % size == 0), default=kernel)
