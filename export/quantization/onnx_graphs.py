"""A plan as ONNX: opset 20, standard operators only, weights decoded by nodes that runtimes fold when they load a file.

Weights of levels without integer arithmetic are cast and scaled back to float. For int8 the graph gets pairs of
QuantizeLinear and DequantizeLinear (QDQ), which runtimes fuse with the convolutions between them: inputs and outputs
unsigned and asymmetric, weights signed and symmetric per output channel (u8s8), biases in 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..neutral import normalized
from .layers import channel_axis, graph_levels, initializers, uses
from .levels import coded
from .samples import Feed

__all__ = ["Range", "emit", "operations", "ranges"]


class Range(NamedTuple):
    """Least and largest value of an array, and how many values it had in all calls together."""

    least: float
    largest: float
    values: int


def ranges(model: onnx.ModelProto, feeds: Iterable[Feed]) -> dict[str, Range]:
    """What goes into and comes out of every convolution, over all calls: the values that 8 bits must hold.

    Minimum and maximum: a restored photo has white where a percentile would cut it off.
    """
    watched = sorted({name for node in uses(model) if node.op_type == "Conv" for name in _ends(model, node)})
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    probed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in watched if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # so that sums, and what follows from them, are the same everywhere
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # keeps what is watched
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = dict.fromkeys(watched, Range(0.0, 0.0, 0))  # zero is always among them: borders are padded with it
    for feed in feeds:
        asked = [name for name in watched if name not in feed]
        made = session.run(asked, dict(feed)) if asked else []
        for name, values in [*zip(asked, made, strict=True), *((name, feed[name]) for name in watched if name in feed)]:
            least, largest, count = found[name]
            found[name] = Range(min(least, float(values.min())), max(largest, float(values.max())), count + values.size)
    return found


def operations(model: onnx.ModelProto, values: Mapping[str, Range]) -> dict[str, int]:
    """Multiply-adds of the convolutions with each weights, by their name, in the calls that `values` are from."""
    weights = initializers(model)
    found: dict[str, int] = {}
    for node in uses(model):
        if node.op_type == "Conv":
            shape = weights[node.input[1]].dims
            positions = values[_ends(model, node)[1]].values // shape[0]
            found[node.input[1]] = found.get(node.input[1], 0) + positions * math.prod(shape)
    return found


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


def _ends(model: onnx.ModelProto, node: onnx.NodeProto) -> tuple[str, str]:
    """The arrays before a convolution and after it: after its ReLU where nothing else sees what is before that."""
    following = [other for other in model.graph.node if node.output[0] in other.input]
    ends = {value.name for value in model.graph.output}
    rectified = len(following) == 1 and following[0].op_type == "Relu" and node.output[0] not in ends
    return node.input[0], following[0].output[0] if rectified else node.output[0]


class _Draft:
    """A graph that is being rewritten: what is to be put at its start, and arrays that pass through 8 bits."""

    def __init__(self, model: onnx.ModelProto, values: Mapping[str, Range]) -> None:
        self.model, self.values = model, values
        self.weights = initializers(model)
        self.nodes = {w: [node for node in uses(model) if node.input[1] == w] for w in self.weights}
        self.start: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.quantized: set[str] = set()
        self.integer: dict[int, str] = {}  # id of a node -> its decoded weights
        self.gone: set[str] = set()

    def encode(self, weights: str, level: str) -> None:
        """Put the coded weights in the place of the float ones."""
        array = numpy_helper.to_array(self.weights[weights])
        axis = channel_axis(self.nodes[weights][0], array.ndim)
        self.gone.add(weights)
        if level == "fp16":
            half = self.constant(f"{weights}/half", array.astype(np.float16))
            self.start.append(helper.make_node("Cast", [half], [weights], to=TensorProto.FLOAT))
        elif level == "w4":
            self.four_bits(weights, array, axis)
        elif level == "w8":
            self.eight_bits(weights, array, axis)
        else:
            self.integers(weights, array, axis)

    def eight_bits(self, weights: str, array: NDArray[np.float32], axis: int) -> None:
        """codes -> float -> * scale of the channel."""
        code, shape = coded(array, "w8", axis), np.ones(array.ndim, np.int64)
        shape[axis] = array.shape[axis]
        codes = np.moveaxis(code.codes.reshape(np.moveaxis(array, axis, 0).shape), 0, axis)
        self.scaled(weights, self.constant(f"{weights}/codes", codes), code.scales.reshape(shape))

    def four_bits(self, weights: str, array: NDArray[np.float32], axis: int) -> None:
        """Two codes in a byte, the first half in the low bits: -> codes + 8 -> float -> * scale of the group."""
        code = coded(array, "w4", axis)
        low, high = np.split((code.codes + 8).astype(np.uint8).reshape(-1), 2)
        packed = self.constant(f"{weights}/codes", low | (high << 4))
        fifteen, four = self.constant("fifteen", np.array(15, np.uint8)), self.constant("four", np.array(4, np.uint8))
        eight = self.constant("eight", np.array(8, np.float32))
        rows = self.constant(f"{weights}/rows", np.array(code.codes.shape, np.int64))
        names = [f"{weights}/{step}" for step in ("low", "high", "both", "float", "centred", "grouped", "flat")]
        low_bits, high_bits, both, real, centred, grouped, flat = names
        scales = self.constant(f"{weights}/half", code.scales.astype(np.float16))
        channels_first = (array.shape[axis], *array.shape[:axis], *array.shape[axis + 1 :])
        shape = self.constant(f"{weights}/shape", np.array(channels_first, np.int64))
        turned = [*range(1, axis + 1), 0, *range(axis + 1, array.ndim)]
        self.start += [
            helper.make_node("BitwiseAnd", [packed, fifteen], [low_bits]),
            helper.make_node("BitShift", [packed, four], [high_bits], direction="RIGHT"),
            helper.make_node("Concat", [low_bits, high_bits], [both], axis=0),
            helper.make_node("Cast", [both], [real], to=TensorProto.FLOAT),
            helper.make_node("Sub", [real, eight], [centred]),
            helper.make_node("Reshape", [centred, rows], [grouped]),
            helper.make_node("Cast", [scales], [f"{weights}/scales"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [grouped, f"{weights}/scales"], [f"{weights}/real"]),
            helper.make_node("Reshape", [f"{weights}/real", shape], [flat if axis else weights]),
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
            before, after = _ends(self.model, node)
            self.quantized |= {before, after}
            self.integer[id(node)] = weights
            if len(node.input) > 2:
                node.input[2] = self.bias(f"{weights}/bias{number}", node.input[2], before, scales)

    def bias(self, name: str, bias: str, before: str, scales: NDArray[np.float32]) -> str:
        """In 32 bits, in units of the products that it is added to."""
        unit = (scales * np.float32(_unit(self.values[before])[0])).astype(np.float32)
        units = np.round(numpy_helper.to_array(self.weights[bias]).astype(np.float64) / unit)
        codes = self.constant(f"{name}/codes", np.clip(units, -(2**31) + 1, 2**31 - 1).astype(np.int32))
        zeros = self.constant(f"{name}/zeros", np.zeros(len(unit), np.int32))
        inputs = [codes, self.constant(f"{name}/scales", unit), zeros]
        self.start.append(helper.make_node("DequantizeLinear", inputs, [name], axis=0))
        return name

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.added[name] = numpy_helper.from_array(np.copy(array, order="C"), name)
        return name

    def finished(self) -> onnx.ModelProto:
        """The graph with everything in its place; float weights that nothing uses any more are dropped."""
        graph = self.model.graph
        nodes = [*self.start, *self.through(value.name for value in graph.input)]
        for node in list(graph.node):
            self.take(node)
            nodes += [node, *self.through(node.output)]
        kept = [tensor for tensor in graph.initializer if tensor.name not in self.gone]
        used = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in (*kept, *self.added.values()) if tensor.name in used]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        constants = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(copies)
        graph.initializer.extend(constants)
        return self.model

    def take(self, node: onnx.NodeProto) -> None:
        """Let a node see what has passed through 8 bits; the ReLU of a convolution sees what is before them."""
        for position, name in enumerate(node.input):
            if name in self.quantized:
                node.input[position] = f"{name}/decoded"

    def through(self, names: Iterable[str]) -> list[onnx.NodeProto]:
        """The pairs for those of the arrays that pass through 8 bits."""
        pairs: list[onnx.NodeProto] = []
        for name in names:
            if name in self.quantized:
                scale, zero = _unit(self.values[name])
                both = [
                    self.constant(f"{name}/scale", np.array(scale, np.float32)),
                    self.constant(f"{name}/zero", np.array(zero, np.uint8)),
                ]
                pairs += [
                    helper.make_node("QuantizeLinear", [name, *both], [f"{name}/codes"]),
                    helper.make_node("DequantizeLinear", [f"{name}/codes", *both], [f"{name}/decoded"]),
                ]
        return pairs


def _unit(values: Range) -> tuple[float, int]:
    """Scale and zero point of unsigned 8 bits for values between two numbers with zero among them."""
    scale = float(np.float32(max((values.largest - values.least) / 255, 1e-12)))
    return scale, int(np.clip(round(-values.least / scale), 0, 255))
