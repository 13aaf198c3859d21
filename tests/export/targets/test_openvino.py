from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from pocketprior.core.errors import MissingExtraError
from pocketprior.export.targets.calibration import FloatPack, GraphInputs, Range
from pocketprior.export.targets.onnx import quantized_graph
from pocketprior.export.targets.openvino import write_ir
from pocketprior.export.targets.weights import dequantize, offered, quantize_weights, weights_digest

pytest.importorskip("openvino", reason="the extra openvino is not installed")


def levels_of(pack: FloatPack, level: str) -> dict[str, str]:
    return {layer.digest: level if level in offered(layer) else "fp32" for layer in pack.layers}


def run(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    import openvino

    return openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feed)[0]


def test_every_code_of_4_bits_is_decoded_exactly(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(0, 1, (64, 128)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weights"], ["y"], transB=1)],
        "dense",
        [helper.make_tensor_value_info("x", 1, [1, 128])],
        [helper.make_tensor_value_info("y", 1, [1, 64])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    write_ir(model, {weights_digest(model.graph.initializer[0]): "w4"}, {}, tmp_path / "graph.xml")
    x = np.random.default_rng(1).normal(0, 1, (1, 128)).astype(np.float32)
    expected = x @ dequantize(quantize_weights(weights, "w4"), weights.shape).T
    np.testing.assert_allclose(run(tmp_path / "graph.xml", {"x": x}), expected, atol=1e-3)


@pytest.mark.parametrize("level", ["fp16", "w8", "w4"])
def test_coded_weights_compute_as_in_onnx(
    opened: FloatPack, feed: dict[str, np.ndarray], level: str, tmp_path: Path
) -> None:
    model, levels = opened.models["fused"], levels_of(opened, level)
    write_ir(model, levels, {}, tmp_path / "graph.xml")
    (tmp_path / "graph.onnx").write_bytes(quantized_graph(model, levels, {}).SerializeToString())
    expected = run(tmp_path / "graph.onnx", feed)
    # Biases and scales are stored in 16 bits.
    np.testing.assert_allclose(run(tmp_path / "graph.xml", feed), expected, atol=2e-3)


def scales_of(pack: FloatPack, scales: str) -> dict[str, Range] | list[GraphInputs]:
    if scales == "nncf":
        pytest.importorskip("nncf", reason="the package nncf is not installed")
        return list(pack.feeds["predict"])
    return dict(pack.values["predict"])


@pytest.mark.parametrize(("level", "scales"), [("w8", "onnx"), ("int8", "onnx"), ("int8", "nncf")])
def test_equal_bytes_that_tell_nothing_of_the_machine(
    opened: FloatPack, level: str, scales: str, tmp_path: Path
) -> None:
    model, given, texts = opened.models["predict"], scales_of(opened, scales), []
    for name in ("a", "b"):
        write_ir(model, levels_of(opened, level), given, tmp_path / f"{name}.xml")
        texts.append([(tmp_path / f"{name}{suffix}").read_bytes() for suffix in (".xml", ".bin")])
    assert texts[0] == texts[1]
    assert str(tmp_path).encode() not in texts[0][0]


@pytest.mark.parametrize("scales", ["onnx", "nncf"])
def test_integers_where_the_plan_has_them(
    opened: FloatPack, feed: dict[str, np.ndarray], scales: str, tmp_path: Path
) -> None:
    one = next(layer for layer in opened.layers if "predict" in layer.graphs)
    levels = {layer.digest: "int8" if layer is one else "fp32" for layer in opened.layers}
    write_ir(opened.models["predict"], levels, scales_of(opened, scales), tmp_path / "graph.xml")
    text = (tmp_path / "graph.xml").read_text()
    assert text.count('type="FakeQuantize"') in (1, 2)  # the array that goes in, and what comes out of it
    image = {"image": feed["image"]}
    (tmp_path / "graph.onnx").write_bytes(opened.models["predict"].SerializeToString())
    expected = run(tmp_path / "graph.onnx", image)
    found = run(tmp_path / "graph.xml", image)
    assert 0 < np.abs(found - expected).max() < 0.1


def test_the_scales_of_the_onnx_graphs_give_their_numbers(
    opened: FloatPack, feed: dict[str, np.ndarray], tmp_path: Path
) -> None:
    model, levels = opened.models["predict"], levels_of(opened, "int8")
    write_ir(model, levels, opened.values["predict"], tmp_path / "graph.xml")
    (tmp_path / "graph.onnx").write_bytes(quantized_graph(model, levels, opened.values["predict"]).SerializeToString())
    image = {"image": feed["image"]}
    np.testing.assert_allclose(run(tmp_path / "graph.xml", image), run(tmp_path / "graph.onnx", image), atol=0.01)


def test_without_openvino(opened: FloatPack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match="openvino"):
        write_ir(opened.models["predict"], levels_of(opened, "w8"), {}, tmp_path / "graph.xml")
