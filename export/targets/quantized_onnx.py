"""Quantized ONNX graphs: opset 20, standard operators only; runtimes fold the nodes that dequantize weights.

Weights without integer arithmetic are cast and scaled back to float. For int8 the graph gets pairs of QuantizeLinear
and DequantizeLinear (QDQ), which runtimes fuse with the convolutions between them: inputs and outputs unsigned and
asymmetric, weights signed and symmetric per output channel (u8s8), biases in 32 bits. What only moves numbers, before
or after such a convolution, moves integers: a quarter of the bytes, and sums of two convolutions stay integers.

Biases take back what quantized weights add to the mean of each channel (Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", ICCV 2019, section 4.2), with measured means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .calibration import Range, conv_arrays, params_of
from .onnx_file import normalized
from .weights import bias_shift, channel_axis, dequantize, graph_precisions, initializers, quantize_weights, uses

__all__ = ["MOVING", "quantized_graph"]

MOVING = ("DepthToSpace", "Reshape", "Transpose")


def quantized_graph(
    model: onnx.ModelProto, precisions: Mapping[str, str], values: Mapping[str, Range]
) -> onnx.ModelProto:
    """The graph with its layers at the given precisions; its metadata is kept.

    Args:
        model: A float graph.
        precisions: Digest of the weights -> precision.
        values: What `ranges` returns for the graph; without it biases are not corrected, and int8 is impossible.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    rewriting = _OnnxRewriting(result, values)
    for weights, precision in graph_precisions(model, precisions).items():
        if precision != "fp32":
            rewriting.quantize(weights, precision)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return normalized(rewriting.finished(), metadata)


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
        """Put quantized weights in the place of the float ones."""
        array = numpy_helper.to_array(self.weights[weights])
        axis = channel_axis(self.nodes[weights][0], array.ndim)
        self.gone.add(weights)
        if precision != "fp16":
            made = quantize_weights(array, precision, axis)
            self.correct_biases(weights, dequantize(made, array.shape, axis) - array)
        if precision == "fp16":
            half = self.constant(f"{weights}/half", array.astype(np.float16))
            self.start.append(helper.make_node("Cast", [half], [weights], to=TensorProto.FLOAT))
        elif precision == "w4":
            self.w4(weights, array, axis)
        elif precision == "w8":
            self.w8(weights, array, axis)
        else:
            self.int8(weights, array, axis)

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

    def w8(self, weights: str, array: NDArray[np.float32], axis: int) -> None:
        """q -> float -> * scale of the channel."""
        made, shape = quantize_weights(array, "w8", axis), np.ones(array.ndim, np.int64)
        shape[axis] = array.shape[axis]
        channels_first = made.q.reshape(np.moveaxis(array, axis, 0).shape)
        q = self.constant(f"{weights}/q", np.moveaxis(channels_first, 0, axis))
        scale, real = self.constant(f"{weights}/scale", made.scale.reshape(shape)), f"{weights}/float"
        self.start += [
            helper.make_node("Cast", [q], [real], to=TensorProto.FLOAT),
            helper.make_node("Mul", [real, scale], [weights]),
        ]

    def w4(self, weights: str, array: NDArray[np.float32], axis: int) -> None:
        """Two numbers in a byte, the first half in the low bits: -> q + 8 -> float -> * scale of the group.

        The high bits are divided as floats, which is exact: OpenVINO 2026.4 rounds a BitShift to the nearest.
        """
        made = quantize_weights(array, "w4", axis)
        first_half, second_half = np.split((made.q + 8).astype(np.uint8).reshape(-1), 2)
        packed = self.constant(f"{weights}/q", first_half | (second_half << 4))
        low_mask = self.constant("low", np.array(0x0F, np.uint8))
        high_mask = self.constant("high", np.array(0xF0, np.uint8))
        eight = self.constant("eight", np.array(8, np.float32))
        sixteenth = self.constant("sixteenth", np.array(1 / 16, np.float32))
        rows = self.constant(f"{weights}/rows", np.array(made.q.shape, np.int64))
        steps = ("low", "high", "first", "second16", "second", "both", "centred", "grouped", "real", "flat")
        low, high, first, second16, second, both, centred, grouped, real, flat = (f"{weights}/{s}" for s in steps)
        scale = self.constant(f"{weights}/half", made.scale.astype(np.float16))
        channels_first = (array.shape[axis], *array.shape[:axis], *array.shape[axis + 1 :])
        shape = self.constant(f"{weights}/shape", np.array(channels_first, np.int64))
        order = [*range(1, axis + 1), 0, *range(axis + 1, array.ndim)]
        self.start += [
            helper.make_node("BitwiseAnd", [packed, low_mask], [low]),
            helper.make_node("Cast", [low], [first], to=TensorProto.FLOAT),
            helper.make_node("BitwiseAnd", [packed, high_mask], [high]),
            helper.make_node("Cast", [high], [second16], to=TensorProto.FLOAT),
            helper.make_node("Mul", [second16, sixteenth], [second]),
            helper.make_node("Concat", [first, second], [both], axis=0),
            helper.make_node("Sub", [both, eight], [centred]),
            helper.make_node("Reshape", [centred, rows], [grouped]),
            helper.make_node("Cast", [scale], [f"{weights}/scale"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [grouped, f"{weights}/scale"], [real]),
            helper.make_node("Reshape", [real, shape], [flat if axis else weights]),
        ]
        if axis:
            self.start.append(helper.make_node("Transpose", [flat], [weights], perm=order))

    def int8(self, weights: str, array: NDArray[np.float32], axis: int) -> None:
        """Weights, and the arrays before and after every convolution that uses them, in 8 bits."""
        made = quantize_weights(array, "int8", axis)
        scale = made.scale.reshape(-1)
        inputs = [
            self.constant(f"{weights}/q", made.q.reshape(array.shape)),
            self.constant(f"{weights}/scale", scale),
            self.constant(f"{weights}/zero", np.zeros(len(scale), np.int8)),
        ]
        self.start.append(helper.make_node("DequantizeLinear", inputs, [weights], axis=0))
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
        inputs = [q, self.constant(f"{name}/scale", products), zero_point]
        self.start.append(helper.make_node("DequantizeLinear", inputs, [name], axis=0))
        return name

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.added[name] = numpy_helper.from_array(np.copy(array, order="C"), name)
        return name

    def finished(self) -> onnx.ModelProto:
        """The rewritten graph, without float weights that nothing uses any more."""
        self.spread()
        graph = self.model.graph
        nodes = [*self.start, *self.through(value.name for value in graph.input)]
        for node in list(graph.node):
            nodes += self.move(node) if self.moves_integers(node) else [self.take(node), *self.through(node.output)]
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

    def moves_integers(self, node: onnx.NodeProto) -> bool:
        return node.op_type in MOVING and {node.input[0], node.output[0]} <= self.quantized

    def move(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node on integers, and the numbers that they stand for."""
        name = node.output[0]
        node.input[0], node.output[0] = f"{node.input[0]}/q", f"{name}/q"
        return [node, self.dequantize(name)]

    def take(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Let a node read what has passed through 8 bits; the ReLU of a convolution reads what comes before them."""
        for position, name in enumerate(node.input):
            if name in self.quantized:
                node.input[position] = f"{name}/q" if node.op_type == "Shape" else f"{name}/float"
        return node

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
        """Scale and zero point of an array, as constants."""
        scale, zero_point = params_of(self.values[name])
        return (
            self.constant(f"{name}/scale", np.array(scale, np.float32)),
            self.constant(f"{name}/zero", np.array(zero_point, np.uint8)),
        )


def _needed(nodes: Iterable[onnx.NodeProto], ends: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes whose outputs are used, in the same order."""

    def backwards() -> Iterator[onnx.NodeProto]:
        used = set(ends)
        for node in reversed([*nodes]):
            if used & {*node.output}:
                used |= {*node.input}
                yield node

    return [*backwards()][::-1]
