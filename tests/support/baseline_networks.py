"""Tiny ONNX networks for the tests of baselines: each does something that can be computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPES = {"image": [1, 3, "H", "W"], "luma": [1, 1, "H", "W"], "sigma": [1, 1, 1, 1]}


def network(
    path: Path, inputs: tuple[str, ...], *nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("restored",)
) -> Path:
    """A file with these inputs and nodes; its constants are `tenth`, `half`, `scale` (1 / 255) and `zero` (uint8)."""
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPES.get(name, [1])) for name in inputs]
    shape = SHAPES.get(inputs[0], [1])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs]
    constants = {"tenth": np.float32(0.1), "half": np.float32(0.5), "scale": np.float32(1 / 255), "zero": np.uint8(0)}
    weights = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", given, results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def brighter_by_sigma(path: Path) -> Path:
    """restored = image + sigma."""
    return network(path, ("image", "sigma"), helper.make_node("Add", ["image", "sigma"], ["restored"]))


def brighter(path: Path, name: str = "image") -> Path:
    """restored = image + 0.1, or the same of luma."""
    return network(path, (name,), helper.make_node("Add", [name, "tenth"], ["restored"]))


def halved(path: Path) -> Path:
    """Half the size and back: (1, 3, H, W) with H and W even -> the mean of each 2 x 2 pixels."""
    pool = helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[2, 2], strides=[2, 2])
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    constant = helper.make_node("Constant", [], ["scales"], value=scales)
    return network(path, ("image",), pool, constant, helper.make_node("Resize", ["small", "", "scales"], ["restored"]))


def quantized(path: Path) -> Path:
    """The image through 8 bits and back."""
    down = helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["codes"])
    return network(
        path, ("image",), down, helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["restored"])
    )
