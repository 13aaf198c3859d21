"""A plan as ONNX: opset 20, standard operators only, weights decoded by nodes that runtimes fold when they load a file.

Weights of levels without integer arithmetic are cast and scaled back to float. For int8 the graph gets pairs of
QuantizeLinear and DequantizeLinear (QDQ), which runtimes fuse with the convolutions between them: inputs and outputs
unsigned and asymmetric, weights signed and symmetric per output channel (u8s8), biases in 32 bits. What moves numbers
without changing them, before such a convolution or after it, moves their codes: a quarter of the bytes, and sums of two
convolutions stay integers.

Biases take back what coding the weights adds to the mean of each channel (Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", ICCV 2019, section 4.2), with means that were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..neutral import normalized
from .layers import channel_axis, graph_levels, initializers, uses
from .levels import bias_shift, coded, decoded
from .ranges import Range, ends, unit_of

__all__ = ["MOVES", "emit"]

MOVES = ("DepthToSpace", "Reshape", "Transpose")


def emit(model: onnx.ModelProto, levels: Mapping[str, str], values: Mapping[str, Range]) -> onnx.ModelProto:
    """`model` with its layers at `levels` (by the digest of their weights); values: what `ranges` gives for it.

    The metadata of `model` is kept.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    draft = _Draft(result, values)
    for weights, level in graph_levels(model, levels).items():
        if level != "fp32":
            draft.encode(weights, level)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return normalized(draft.finished(), metadata)


class _Draft:
    """A graph that is being rewritten: what is to be put at its start, and arrays that pass through 8 bits."""

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

    def encode(self, weights: str, level: str) -> None:
        """Put the coded weights in the place of the float ones."""
        array = numpy_helper.to_array(self.weights[weights])
        axis = channel_axis(self.nodes[weights][0], array.ndim)
        self.gone.add(weights)
        if level != "fp16":
            self.correct_biases(weights, decoded(coded(array, level, axis), array.shape, axis) - array)
        if level == "fp16":
            half = self.constant(f"{weights}/half", array.astype(np.float16))
            self.start.append(helper.make_node("Cast", [half], [weights], to=TensorProto.FLOAT))
        elif level == "w4":
            self.four_bits(weights, array, axis)
        elif level == "w8":
            self.eight_bits(weights, array, axis)
        else:
            self.integers(weights, array, axis)

    def correct_biases(self, weights: str, change: NDArray[np.float32]) -> None:
        """Take the mean of the convolution with `change`, that of the weights, off the biases added to it."""
        nodes = [n for n in self.nodes[weights] if n.op_type == "Conv" and n.input[0] in self.values]
        if not nodes:
            return
        shift = bias_shift(change, np.mean([self.values[node.input[0]].means for node in nodes], axis=0))
        for node in nodes:
            old = node.input[2] if len(node.input) > 2 else ""
            bias = numpy_helper.to_array(self.weights[old]) if old else np.zeros(len(shift), np.float32)
            del node.input[2:]
            node.input.append(self.constant(f"{weights}/{old or 'no'}/bias", (bias - shift).astype(np.float32)))

    def eight_bits(self, weights: str, array: NDArray[np.float32], axis: int) -> None:
        """codes -> float -> * scale of the channel."""
        code, shape = coded(array, "w8", axis), np.ones(array.ndim, np.int64)
        shape[axis] = array.shape[axis]
        codes = np.moveaxis(code.codes.reshape(np.moveaxis(array, axis, 0).shape), 0, axis)
        self.scaled(weights, self.constant(f"{weights}/codes", codes), code.scales.reshape(shape))

    def four_bits(self, weights: str, array: NDArray[np.float32], axis: int) -> None:
        """Two codes in a byte, the first half in the low bits: -> codes + 8 -> float -> * scale of the group.

        The high bits are divided as floats, which is exact: OpenVINO 2026.4 rounds a BitShift to the nearest.
        """
        code = coded(array, "w4", axis)
        halves = np.split((code.codes + 8).astype(np.uint8).reshape(-1), 2)
        packed = self.constant(f"{weights}/codes", halves[0] | (halves[1] << 4))
        low_mask = self.constant("low", np.array(0x0F, np.uint8))
        high_mask = self.constant("high", np.array(0xF0, np.uint8))
        eight = self.constant("eight", np.array(8, np.float32))
        sixteenth = self.constant("sixteenth", np.array(1 / 16, np.float32))
        rows = self.constant(f"{weights}/rows", np.array(code.codes.shape, np.int64))
        steps = ("low", "high", "first", "second16", "second", "both", "centred", "grouped", "real", "flat")
        low, high, first, second16, second, both, centred, grouped, real, flat = (f"{weights}/{s}" for s in steps)
        scales = self.constant(f"{weights}/half", code.scales.astype(np.float16))
        channels_first = (array.shape[axis], *array.shape[:axis], *array.shape[axis + 1 :])
        shape = self.constant(f"{weights}/shape", np.array(channels_first, np.int64))
        turned = [*range(1, axis + 1), 0, *range(axis + 1, array.ndim)]
        self.start += [
            helper.make_node("BitwiseAnd", [packed, low_mask], [low]),
            helper.make_node("Cast", [low], [first], to=TensorProto.FLOAT),
            helper.make_node("BitwiseAnd", [packed, high_mask], [high]),
            helper.make_node("Cast", [high], [second16], to=TensorProto.FLOAT),
            helper.make_node("Mul", [second16, sixteenth], [second]),
            helper.make_node("Concat", [first, second], [both], axis=0),
            helper.make_node("Sub", [both, eight], [centred]),
            helper.make_node("Reshape", [centred, rows], [grouped]),
            helper.make_node("Cast", [scales], [f"{weights}/scales"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [grouped, f"{weights}/scales"], [real]),
            helper.make_node("Reshape", [real, shape], [flat if axis else weights]),
        ]
        if axis:
            self.start.append(helper.make_node("Transpose", [flat], [weights], perm=turned))

    def scaled(self, weights: str, codes: str, scales: NDArray[np.float32]) -> None:
        real = f"{weights}/float"
        self.start += [
            helper.make_node("Cast", [codes], [real], to=TensorProto.FLOAT),
            helper.make_node("Mul", [real, self.constant(f"{weights}/scales", scales)], [weights]),
        ]

    def integers(self, weights: str, array: NDArray[np.float32], axis: int) -> None:
        """Weights, and the arrays before and after every convolution that uses them, in 8 bits."""
        code = coded(array, "int8", axis)
        codes = self.constant(f"{weights}/codes", code.codes.reshape(array.shape))
        scales = code.scales.reshape(-1)
        zeros = np.zeros(len(scales), np.int8)
        inputs = [codes, self.constant(f"{weights}/scales", scales), self.constant(f"{weights}/zeros", zeros)]
        self.start.append(helper.make_node("DequantizeLinear", inputs, [weights], axis=0))
        for number, node in enumerate(self.nodes[weights]):
            before, after = ends(self.model, node)
            self.quantized |= {before, after}
            if len(node.input) > 2:
                node.input[2] = self.bias(f"{weights}/bias{number}", node.input[2], before, scales)

    def bias(self, name: str, bias: str, before: str, scales: NDArray[np.float32]) -> str:
        """In 32 bits, in units of the products that it is added to."""
        one = (scales * np.float32(unit_of(self.values[before])[0])).astype(np.float32)
        given = numpy_helper.to_array(self.added[bias] if bias in self.added else self.weights[bias])
        units = np.round(given.astype(np.float64) / one)
        codes = self.constant(f"{name}/codes", np.clip(units, -(2**31) + 1, 2**31 - 1).astype(np.int32))
        zeros = self.constant(f"{name}/zeros", np.zeros(len(one), np.int32))
        inputs = [codes, self.constant(f"{name}/scales", one), zeros]
        self.start.append(helper.make_node("DequantizeLinear", inputs, [name], axis=0))
        return name

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.added[name] = numpy_helper.from_array(np.copy(array, order="C"), name)
        return name

    def finished(self) -> onnx.ModelProto:
        """The graph with everything in its place; float weights that nothing uses any more are dropped."""
        self.spread()
        graph = self.model.graph
        nodes = [*self.start, *self.through(value.name for value in graph.input)]
        for node in list(graph.node):
            nodes += self.move(node) if self.moves_codes(node) else [self.take(node), *self.through(node.output)]
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
        """What is only moved to or from an array in 8 bits passes through 8 bits too, in the same units."""
        ends = {value.name for value in self.model.graph.output}
        readers: dict[str, list[str]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node.op_type)
        moves = [node for node in self.model.graph.node if node.op_type in MOVES and node.output[0] not in ends]
        for node in moves:
            if node.input[0] in self.quantized:
                self.join(node.output[0], node.input[0])
        for node in reversed(moves):
            if node.output[0] in self.quantized and {*readers[node.input[0]]} <= {*MOVES, "Shape"}:
                self.join(node.input[0], node.output[0])

    def join(self, name: str, like: str) -> None:
        self.quantized.add(name)
        self.values[name] = self.values[like]

    def moves_codes(self, node: onnx.NodeProto) -> bool:
        return node.op_type in MOVES and {node.input[0], node.output[0]} <= self.quantized

    def move(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node on codes, and the numbers that they stand for."""
        name = node.output[0]
        node.input[0], node.output[0] = f"{node.input[0]}/codes", f"{name}/codes"
        return [node, self.decode(name)]

    def take(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Let a node see what has passed through 8 bits; the ReLU of a convolution sees what is before them."""
        for position, name in enumerate(node.input):
            if name in self.quantized:
                node.input[position] = f"{name}/codes" if node.op_type == "Shape" else f"{name}/decoded"
        return node

    def through(self, names: Iterable[str]) -> list[onnx.NodeProto]:
        """The pairs for those of the arrays that pass through 8 bits."""
        pairs: list[onnx.NodeProto] = []
        for name in names:
            if name in self.quantized:
                inputs = [name, *self.unit(name)]
                pairs += [helper.make_node("QuantizeLinear", inputs, [f"{name}/codes"]), self.decode(name)]
        return pairs

    def decode(self, name: str) -> onnx.NodeProto:
        return helper.make_node("DequantizeLinear", [f"{name}/codes", *self.unit(name)], [f"{name}/decoded"])

    def unit(self, name: str) -> tuple[str, str]:
        """The constants by which an array is coded."""
        scale, zero = unit_of(self.values[name])
        return (
            self.constant(f"{name}/scale", np.array(scale, np.float32)),
            self.constant(f"{name}/zero", np.array(zero, np.uint8)),
        )


def _needed(nodes: Iterable[onnx.NodeProto], ends: Iterable[str]) -> list[onnx.NodeProto]:
    """Those of the nodes, in the same order, whose outputs are used."""

    def backwards() -> Iterator[onnx.NodeProto]:
        used = set(ends)
        for node in reversed([*nodes]):
            if used & {*node.output}:
                used |= {*node.input}
                yield node

    return [*backwards()][::-1]
