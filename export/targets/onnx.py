"""The target "onnx": standard operators only, free or fixed sizes, equal bytes for equal weights.

In quantized graphs, weights without integer arithmetic are cast and scaled back to float, by nodes that runtimes fold.
For int8 the graph gets pairs of QuantizeLinear and DequantizeLinear (QDQ), which runtimes fuse with the convolutions
between them: inputs and outputs unsigned and asymmetric, weights signed and symmetric per output channel (u8s8), biases
in 32 bits. What only moves numbers, before or after such a convolution, moves integers: a quarter of the bytes, and
sums of two convolutions stay integers.

Biases take back what quantized weights add to the mean of each channel (Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", ICCV 2019, section 4.2), with measured means.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...core.pack.store import packed_file
from ..systems.source import ModelGraph
from . import WEIGHT_PRECISIONS, GraphToWrite, Target, Written
from .calibration import FloatPack, Range, conv_arrays, params_of
from .onnx_file import ConstantStore, join_files, normalized, shared_onnx, write_graph
from .weights import (
    QuantizedWeights,
    bias_shift,
    channel_axis,
    channels_first,
    dequantize,
    graph_precisions,
    initializers,
    quantize_weights,
    uses,
)

__all__ = ["TARGET", "convert_onnx", "node_lists", "onnx_files", "quantized_graph"]

OPSET = 20  # the newest that ONNX Runtime and OpenVINO both support well
MOVING = ("DepthToSpace", "Reshape", "Transpose")


def convert_onnx(
    graph: ModelGraph, program: torch.export.ExportedProgram, path: Path, *, metadata: Mapping[str, str]
) -> tuple[Path, ...]:
    """Write `program`, what `traced` returns for `graph`, to `path`; returns files of weights, where they are large."""
    # The exporter warns about its own deprecations and about optional packages.
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        for chatty in ("torch.onnx", "onnxscript"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    return write_graph(normalized(exported.model_proto, dict(metadata)), path)


def onnx_files(
    pack: FloatPack, precisions: Mapping[str, str], folder: Path, label: str, graphs: Sequence[str] | None = None
) -> dict[str, Written]:
    """Write the graphs of a float pack; as `Target.emit`, but for `graphs`, the only ones that are quantized.

    A graph without quantized layers is copied as fp32.
    """
    named, written = pack.by_digest(precisions), dict[str, Written]()
    for name, model in pack.models.items():
        changed = any(name in layer.graphs and precisions[layer.name] != "fp32" for layer in pack.layers)
        if changed and (graphs is None or name in graphs):
            path = folder / f"{name}.{label}.onnx"
            parts = write_graph(quantized_graph(model, named, pack.values[name]), path)
            written[name] = _written(label, path, parts)
        else:
            spec = pack.manifest.graphs[name]
            written[name] = Written("fp32", spec.files["onnx"]["fp32"], spec.parts.get("onnx", {}).get("fp32", ()))
            for packed in (written[name].file, *written[name].parts):
                shutil.copyfile(pack.folder / packed.file, folder / packed.file)
    return written


def node_lists(pack: FloatPack, precisions: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Graph -> precision -> names of the float graph's nodes, or of the outputs of unnamed ones."""
    named, lists = pack.by_digest(precisions), dict[str, dict[str, list[str]]]()
    for graph, model in pack.models.items():
        given = graph_precisions(model, named)
        lists[graph] = {
            precision: [n.name or n.output[0] for n in uses(model) if given[n.input[1]] == precision]
            for precision in WEIGHT_PRECISIONS
            if precision in given.values()
        }
    return lists


def _written(label: str, path: Path, parts: Sequence[Path]) -> Written:
    return Written(label, packed_file(path.parent, path.name), tuple(packed_file(path.parent, p.name) for p in parts))


def _write(job: GraphToWrite, folder: Path) -> Written:
    path = folder / f"{job.name}.onnx"
    return _written("fp32", path, convert_onnx(job.graph, job.program, path, metadata=job.metadata))


def _split(path: Path, store: ConstantStore) -> tuple[bytes, bytes]:
    model = shared_onnx(onnx.load(path), store)
    content = model.SerializeToString(deterministic=True)
    del model.metadata_props[:]  # the facts of the task
    return content, model.SerializeToString(deterministic=True)


def quantized_graph(
    model: onnx.ModelProto, precisions: Mapping[str, str], values: Mapping[str, Range]
) -> onnx.ModelProto:
    """The float graph with its layers at the given precisions, by the digest of their weights; its metadata is kept.

    `values` is what `ranges` returns for the graph; without it biases are not corrected, and int8 is impossible.
    """
    result = deepcopy(model)
    rewriting = _OnnxRewriting(result, values)
    for weights, precision in graph_precisions(model, precisions).items():
        if precision != "fp32":
            rewriting.quantize(weights, precision)
    return normalized(rewriting.finished(), {entry.key: entry.value for entry in model.metadata_props})


class _OnnxRewriting:
    """A graph that is being rewritten: nodes to put at its start, and arrays that pass through 8 bits."""

    def __init__(self, model: onnx.ModelProto, values: Mapping[str, Range]) -> None:
        self.model, self.values = model, dict(values)
        self.weights = initializers(model)
        self.nodes: dict[str, list[onnx.NodeProto]] = {}
        for node in uses(model):
            self.nodes.setdefault(node.input[1], []).append(node)
        self.start: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.quantized: set[str] = set()
        self.gone: set[str] = set()

    def quantize(self, weights: str, precision: str) -> None:
        array = numpy_helper.to_array(self.weights[weights])
        axis = channel_axis(self.nodes[weights][0], array.ndim)
        self.gone.add(weights)
        if precision == "fp16":
            half = self.constant(f"{weights}/half", array.astype(np.float16))
            self.begin("Cast", [half], weights, to=TensorProto.FLOAT)
            return
        made = quantize_weights(array, precision, axis)
        self.correct_biases(weights, dequantize(made, array.shape, axis) - array)
        {"w8": self.w8, "w4": self.w4, "int8": self.int8}[precision](weights, made, array.shape, axis)

    def begin(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.start.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def correct_biases(self, weights: str, change: NDArray[np.float32]) -> None:
        """Subtract from the biases what a `change` of the weights adds to the mean of the convolution."""
        nodes = [n for n in self.nodes[weights] if n.op_type == "Conv" and n.input[0] in self.values]
        if not nodes:
            return
        shift = bias_shift(change, np.mean([self.values[node.input[0]].means for node in nodes], axis=0))
        for node in nodes:
            old = node.input[2] if len(node.input) > 2 else ""
            bias = numpy_helper.to_array(self.weights[old]) if old else np.zeros(len(shift), np.float32)
            del node.input[2:]
            node.input.append(self.constant(f"{weights}/{old or 'no'}/bias", (bias - shift).astype(np.float32)))

    def w8(self, weights: str, made: QuantizedWeights, shape: tuple[int, ...], axis: int) -> None:
        """q -> float -> * scale of the channel."""
        q = self.constant(f"{weights}/q", np.moveaxis(made.q.reshape(channels_first(shape, axis)), 0, axis))
        scales = [size if place == axis else 1 for place, size in enumerate(shape)]
        scale = self.constant(f"{weights}/scale", made.scale.reshape(scales))
        self.begin("Mul", [self.begin("Cast", [q], f"{weights}/float", to=TensorProto.FLOAT), scale], weights)

    def w4(self, weights: str, made: QuantizedWeights, shape: tuple[int, ...], axis: int) -> None:
        """Two numbers in a byte, the first half in the low bits: -> q + 8 -> float -> * scale of the group."""
        first_half, second_half = np.split((made.q + 8).astype(np.uint8).reshape(-1), 2)
        packed = self.constant(f"{weights}/q", first_half | (second_half << 4))
        low_mask = self.constant("low", np.array(0x0F, np.uint8))
        high_mask = self.constant("high", np.array(0xF0, np.uint8))
        eight = self.constant("eight", np.array(8, np.float32))
        sixteenth = self.constant("sixteenth", np.array(1 / 16, np.float32))
        rows = self.constant(f"{weights}/rows", np.array(made.q.shape, np.int64))
        half = self.constant(f"{weights}/half", made.scale.astype(np.float16))
        flat = self.constant(f"{weights}/shape", np.array(channels_first(shape, axis), np.int64))
        low = self.begin("BitwiseAnd", [packed, low_mask], f"{weights}/low")
        first = self.begin("Cast", [low], f"{weights}/first", to=TensorProto.FLOAT)
        high = self.begin("BitwiseAnd", [packed, high_mask], f"{weights}/high")
        second16 = self.begin("Cast", [high], f"{weights}/second16", to=TensorProto.FLOAT)
        # Division as floats is exact; OpenVINO 2026.4 rounds a BitShift to the nearest.
        second = self.begin("Mul", [second16, sixteenth], f"{weights}/second")
        both = self.begin("Concat", [first, second], f"{weights}/both", axis=0)
        centred = self.begin("Sub", [both, eight], f"{weights}/centred")
        grouped = self.begin("Reshape", [centred, rows], f"{weights}/grouped")
        scale = self.begin("Cast", [half], f"{weights}/scale", to=TensorProto.FLOAT)
        real = self.begin("Mul", [grouped, scale], f"{weights}/real")
        result = self.begin("Reshape", [real, flat], f"{weights}/flat" if axis else weights)
        if axis:
            order = [*range(1, axis + 1), 0, *range(axis + 1, len(shape))]
            self.begin("Transpose", [result], weights, perm=order)

    def int8(self, weights: str, made: QuantizedWeights, shape: tuple[int, ...], _: int) -> None:
        """Weights, and the arrays before and after every convolution that uses them, in 8 bits."""
        scale = made.scale.reshape(-1)
        arrays = {"q": made.q.reshape(shape), "scale": scale, "zero": np.zeros(len(scale), np.int8)}
        inputs = [self.constant(f"{weights}/{part}", array) for part, array in arrays.items()]
        self.begin("DequantizeLinear", inputs, weights, axis=0)
        for number, node in enumerate(self.nodes[weights]):
            before, after = conv_arrays(self.model, node)
            self.quantized |= {before, after}
            if len(node.input) > 2:
                node.input[2] = self.bias(f"{weights}/bias{number}", node.input[2], before, scale)

    def bias(self, name: str, bias: str, before: str, scale: NDArray[np.float32]) -> str:
        """In 32 bits, at the scale of the products that it is added to."""
        products = (scale * np.float32(params_of(self.values[before])[0])).astype(np.float32)
        given = numpy_helper.to_array(self.added[bias] if bias in self.added else self.weights[bias])
        rounded = np.round(given.astype(np.float64) / products)
        q = self.constant(f"{name}/q", np.clip(rounded, -(2**31) + 1, 2**31 - 1).astype(np.int32))
        zero_point = self.constant(f"{name}/zero", np.zeros(len(products), np.int32))
        return self.begin("DequantizeLinear", [q, self.constant(f"{name}/scale", products), zero_point], name, axis=0)

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.added[name] = numpy_helper.from_array(np.copy(array, order="C"), name)
        return name

    def finished(self) -> onnx.ModelProto:
        """The rewritten graph, without float weights that nothing uses any more."""
        self.spread()
        graph = self.model.graph
        nodes = [*self.start, *self.through(value.name for value in graph.input)]
        for node in list(graph.node):
            nodes += self.rewritten(node)
        nodes = _needed(nodes, {value.name for value in graph.output})
        kept = [tensor for tensor in graph.initializer if tensor.name not in self.gone]
        used = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in (*kept, *self.added.values()) if tensor.name in used]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        constants = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(copies)
        graph.initializer.extend(constants)
        return self.model

    def spread(self) -> None:
        """What is only moved to or from an array in 8 bits passes through 8 bits too, at the same scale."""
        ends = {value.name for value in self.model.graph.output}
        readers: dict[str, list[str]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node.op_type)
        moves = [node for node in self.model.graph.node if node.op_type in MOVING and node.output[0] not in ends]
        for node in moves:
            if node.input[0] in self.quantized:
                self.join(node.output[0], node.input[0])
        for node in reversed(moves):
            if node.output[0] in self.quantized and {*readers[node.input[0]]} <= {*MOVING, "Shape"}:
                self.join(node.input[0], node.output[0])

    def join(self, name: str, like: str) -> None:
        self.quantized.add(name)
        self.values[name] = self.values[like]

    def rewritten(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node, and what lets its results pass through 8 bits; what only moves numbers there moves integers."""
        if node.op_type in MOVING and {node.input[0], node.output[0]} <= self.quantized:
            name = node.output[0]
            node.input[0], node.output[0] = f"{node.input[0]}/q", f"{name}/q"
            return [node, self.dequantize(name)]
        # Others read what has passed through 8 bits; the ReLU of a convolution reads what comes before them.
        for position, name in enumerate(node.input):
            if name in self.quantized:
                node.input[position] = f"{name}/q" if node.op_type == "Shape" else f"{name}/float"
        return [node, *self.through(node.output)]

    def through(self, names: Iterable[str]) -> list[onnx.NodeProto]:
        """The pairs for those of the arrays that pass through 8 bits."""
        pairs: list[onnx.NodeProto] = []
        for name in names:
            if name in self.quantized:
                inputs = [name, *self.params(name)]
                pairs += [helper.make_node("QuantizeLinear", inputs, [f"{name}/q"]), self.dequantize(name)]
        return pairs

    def dequantize(self, name: str) -> onnx.NodeProto:
        return helper.make_node("DequantizeLinear", [f"{name}/q", *self.params(name)], [f"{name}/float"])

    def params(self, name: str) -> tuple[str, str]:
        scale, zero_point = params_of(self.values[name])
        return (
            self.constant(f"{name}/scale", np.array(scale, np.float32)),
            self.constant(f"{name}/zero", np.array(zero_point, np.uint8)),
        )


def _needed(nodes: Sequence[onnx.NodeProto], ends: Iterable[str]) -> list[onnx.NodeProto]:
    used, kept = set(ends), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if used & {*node.output}:
            used |= {*node.input}
            kept.append(node)
    return kept[::-1]


TARGET = Target(
    name="onnx",
    runtime="onnxruntime",
    precisions=WEIGHT_PRECISIONS,
    emit=onnx_files,
    write=_write,
    join=partial(join_files, "onnx", _split),
    plan=lambda pack, precisions: ("onnx", node_lists(pack, precisions)),
)
