"""The layers of a pack: weights of its float graphs, each once, however many graphs and sampling steps use them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
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

__all__ = [
    "Layer",
    "array_digest",
    "channel_axis",
    "graph_levels",
    "initializers",
    "layers_of",
    "load_graphs",
    "uses",
    "weights_digest",
]

KINDS = {"Conv": "conv", "Gemm": "dense", "MatMul": "dense"}


class Layer(NamedTuple):
    """Weights that are quantized together.

    name: "graph/weights", as the first graph that has them calls them. digest: sha256 (hex) of the float32 weights,
    by which they are found in every graph. kind: "conv" or "dense". shape: of the weights; axis: that of the output
    channels. graphs: those that hold them, each once. spatial: a convolution of pictures: integer arithmetic pays.
    """

    name: str
    digest: str
    kind: str
    shape: tuple[int, ...]
    axis: int
    graphs: tuple[str, ...]
    spatial: bool

    @property
    def count(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """How many weights."""
        return math.prod(self.shape)


def load_graphs(folder: Path, manifest: Manifest) -> dict[str, onnx.ModelProto]:
    """The float32 graphs of the pack in `folder`. Raises UsageError where it has others alone, PackTamperedError."""
    models: dict[str, onnx.ModelProto] = {}
    for name, spec in manifest.graphs.items():
        packed = spec.files.get("onnx", {}).get("fp32")
        if packed is None:
            raise UsageError(
                f"the pack '{manifest.name}' has no float32 ONNX file of the graph '{name}'; quantize a pack that was "
                "exported with --precision fp32"
            )
        for file in (packed, *spec.parts.get("onnx", {}).get("fp32", ())):
            check_file(folder, file)
        models[name] = onnx.load(folder / packed.file)
    return models


def layers_of(models: Mapping[str, onnx.ModelProto], manifest: Manifest) -> list[Layer]:
    """Every layer, in the order of the graphs and their nodes. Raises PackError for a pack without any."""
    found: dict[str, Layer] = {}
    # Parts give their names before the graph that has them all.
    for graph, model in sorted(models.items(), key=lambda item: item[0] == "fused"):
        weights = initializers(model)
        seen: set[str] = set()
        for node in uses(model):
            tensor = weights[node.input[1]]
            digest = weights_digest(tensor)
            spatial = manifest.graphs[graph].spatial and node.op_type == "Conv"
            name, shape = f"{graph}/{_stem(tensor.name)}", tuple(tensor.dims)
            new = Layer(name, digest, KINDS[node.op_type], shape, channel_axis(node, len(shape)), (graph,), spatial)
            known = found.setdefault(digest, new)
            graphs = known.graphs if digest in seen or graph in known.graphs else (*known.graphs, graph)
            found[digest] = known._replace(graphs=graphs, spatial=known.spatial or spatial)
            seen.add(digest)
    if not found:
        raise PackError(
            f"the pack '{manifest.name}' has no layer with {MIN_WEIGHTS} weights or more; there is nothing to do"
        )
    return list(found.values())


def uses(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes whose second input is the weights of a layer."""
    weights = initializers(model)
    for node in model.graph.node:
        if node.op_type in KINDS and node.input[1] in weights and math.prod(weights[node.input[1]].dims) >= MIN_WEIGHTS:
            yield node


def channel_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """The axis of the output channels in the weights of a node."""
    if node.op_type == "MatMul":
        return dimensions - 1
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or turned else 1


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Constants of the graph by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def weights_digest(tensor: onnx.TensorProto) -> str:
    """`array_digest` of the weights."""
    return array_digest(numpy_helper.to_array(tensor))


def array_digest(weights: NDArray[np.float32]) -> str:
    """sha256 (hex) of the shape and the float32 weights."""
    return hashlib.sha256(f"{list(weights.shape)} ".encode() + weights.tobytes()).hexdigest()


def graph_levels(model: onnx.ModelProto, levels: Mapping[str, str]) -> dict[str, str]:
    """Levels by digest -> levels by the name of the weights in this graph."""
    weights = initializers(model)
    named = {node.input[1]: weights_digest(weights[node.input[1]]) for node in uses(model)}
    return {name: levels[digest] for name, digest in named.items()}


def _stem(name: str) -> str:
    return name.removesuffix(".weight").rstrip("_")
