"""The graphs that a plan becomes hold just the numbers that the levels say, in every runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from pocketprior.export.targets.calibration import FloatPack, Range, ranges
from pocketprior.export.targets.onnx import MOVING, quantized_graph
from pocketprior.export.targets.weights import (
    channel_axis,
    dequantize,
    initializers,
    layer_bytes,
    layers_of,
    offered,
    quantize_weights,
    uses,
    weights_digest,
)


def at(pack: FloatPack, level: str, graph: str = "fused") -> onnx.ModelProto:
    levels = {layer.digest: level if level in offered(layer) else "fp32" for layer in pack.layers}
    return quantized_graph(pack.models[graph], levels, pack.values[graph])


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def by_hand(model: onnx.ModelProto, level: str) -> onnx.ModelProto:
    """The float graph with weights that were coded and decoded in NumPy."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensors = initializers(changed)
    for node in uses(model):
        tensor = tensors[node.input[1]]
        array = numpy_helper.to_array(initializers(model)[tensor.name])
        axis = channel_axis(node, array.ndim)
        half = array.astype(np.float16).astype(np.float32)
        new = half if level == "fp16" else dequantize(quantize_weights(array, level, axis), array.shape, axis)
        tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    return changed


@pytest.mark.parametrize("level", ["fp16", "w8", "w4"])
def test_decoded_weights_are_those_of_the_level(opened: FloatPack, feed: dict[str, np.ndarray], level: str) -> None:
    model = opened.models["fused"]
    expected = run(by_hand(model, level), feed)
    assert np.abs(expected - run(model, feed)).max() > 1e-7
    levels = {layer.digest: level if level in offered(layer) else "fp32" for layer in opened.layers}
    np.testing.assert_allclose(run(quantized_graph(model, levels, {}), feed), expected, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("biased", [True, False])
def test_biases_keep_the_means_of_channels(groups: int, biased: bool) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, (64, 8 // groups, 3, 3)).astype(np.float32)
    names = ["picture", "kernel", *(["bias"] if biased else [])]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", names, ["y"], group=groups)],
            "biases",
            [helper.make_tensor_value_info("picture", 1, [1, 8, 16, 16])],
            [helper.make_tensor_value_info("y", 1, [1, 64, 14, 14])],
            [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.ones(64, np.float32), "bias")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    # Nearly constant channels: the mean of what coding adds is all that it adds.
    means = rng.uniform(-1, 1, (1, 8, 1, 1)).astype(np.float32)
    picture = {"picture": means + rng.normal(0, 1e-3, (1, 8, 16, 16)).astype(np.float32)}
    levels = {weights_digest(model.graph.initializer[0]): "w4"}
    errors = [
        np.abs(run(quantized_graph(model, levels, values), picture) - run(model, picture)).mean()
        for values in ({}, ranges(model, [picture]))
    ]
    assert errors[1] < 0.02 * errors[0]


@pytest.mark.parametrize("level", ["fp16", "w8", "w4", "int8"])
def test_graphs_are_valid_and_of_the_same_opset(opened: FloatPack, level: str) -> None:
    model = at(opened, level)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert {value.name for value in model.graph.input} == {"image", "noise", "code", "strength"}


@pytest.mark.parametrize("level", ["w8", "w4", "int8"])
def test_every_runtime_computes_the_same(
    opened: FloatPack, feed: dict[str, np.ndarray], level: str, tmp_path: Path
) -> None:
    from onnx.reference import ReferenceEvaluator

    model = at(opened, level)
    expected = run(model, feed)
    # Integers may be rounded the other way where a value lies between two.
    slack = 0.01 if level == "int8" else 1e-5
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, feed)[0], expected, atol=slack)
    if importlib.util.find_spec("openvino") is None:
        return
    import openvino

    (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
    compiled = openvino.compile_model(tmp_path / "graph.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(feed)[0], expected, atol=slack)


def test_sizes_are_those_that_a_plan_counts(opened: FloatPack) -> None:
    model = opened.models["predict"]
    layers = layers_of({"predict": model}, opened.manifest)
    whole = len(at(opened, "fp32", "predict").SerializeToString())
    for level in ("fp16", "w8", "w4"):
        saved = sum(layer_bytes(layer, "fp32") - layer_bytes(layer, level) for layer in layers)
        found = whole - len(at(opened, level, "predict").SerializeToString())
        assert abs(saved - found) < 800 * len(layers)  # nodes that decode


def test_integer_convolutions_lie_between_pairs(opened: FloatPack) -> None:
    """So that runtimes fuse them: weights, biases, what comes in and what goes out are decoded codes."""
    model = at(opened, "int8")
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    integer = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(integer) == 2 * (1 + 2)
    for node in integer:
        assert {made_by[name] for name in node.input} == {"DequantizeLinear"}
        followers = {other.op_type for other in model.graph.node if node.output[0] in other.input}
        assert followers == {"QuantizeLinear"}


def moved() -> tuple[onnx.ModelProto, dict[str, Range]]:
    """Picture -> pixel-unshuffle -> convolution -> pixel-shuffle, added to a second convolution of the picture."""
    rng = np.random.default_rng(0)
    kernels = {"first": (32, 4, 3, 3), "second": (8, 1, 7, 7)}
    constants = [numpy_helper.from_array(rng.normal(0, 0.1, s).astype(np.float32), n) for n, s in kernels.items()]
    shapes = {"halves": (1, 1, 4, 2, 4, 2), "quarters": (1, 4, 4, 4)}
    constants += [numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("Neg", ["picture"], ["x"]),
        helper.make_node("Reshape", ["x", "halves"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 5, 2, 4]),
        helper.make_node("Reshape", ["b", "quarters"], ["c"]),
        helper.make_node("Conv", ["c", "first"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["d"], ["e"], blocksize=2),
        helper.make_node("Conv", ["picture", "second"], ["f"], pads=[3, 3, 3, 3]),
        helper.make_node("Add", ["e", "f"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info("picture", 1, [1, 1, 8, 8])]
    result = [helper.make_tensor_value_info("y", 1, [1, 8, 8, 8])]
    graph = helper.make_graph(nodes, "moved", ends, result, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model, ranges(model, [{"picture": rng.random((1, 1, 8, 8), np.float32)}])


def test_what_only_moves_numbers_moves_codes() -> None:
    model, values = moved()
    digests = [weights_digest(tensor) for tensor in model.graph.initializer[:2]]
    made = quantized_graph(model, dict.fromkeys(digests, "int8"), values)
    onnx.checker.check_model(made, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(made).graph.value_info}
    movers = [node for node in made.graph.node if node.op_type in MOVING]
    assert len(movers) == 4
    assert {types[name] for node in movers for name in node.output} == {onnx.TensorProto.UINT8}
    made_by = {output: node.op_type for node in made.graph.node for output in node.output}
    (total,) = (node for node in made.graph.node if node.op_type == "Add")
    assert {made_by[name] for name in total.input} == {"DequantizeLinear"}
    picture = {"picture": np.random.default_rng(0).random((1, 1, 8, 8), np.float32)}
    assert np.sqrt(np.mean(np.square(run(made, picture) - run(model, picture)))) < 0.02


def test_no_node_is_left_that_nothing_uses(opened: FloatPack) -> None:
    for level in ("w4", "int8"):
        model = at(opened, level)
        used = {name for node in model.graph.node for name in node.input} | {v.name for v in model.graph.output}
        assert all(used & {*node.output} for node in model.graph.node)


def test_one_layer_alone_leaves_the_others_in_float(opened: FloatPack) -> None:
    one = next(layer for layer in opened.layers if "fused" in layer.graphs and layer.spatial)
    levels = {layer.digest: "int8" if layer is one else "fp32" for layer in opened.layers}
    model = quantized_graph(opened.models["fused"], levels, opened.values["fused"])
    stored = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert sum(tuple(tensor.dims) == one.shape for tensor in stored) == 1


def test_equal_bytes(opened: FloatPack) -> None:
    first, second = (at(opened, "int8").SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
