"""Constants are stored once, where they can be read at once, and graphs stay what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketprior.core.pack.store import default_pack
from pocketprior.export.targets.onnx_file import _BLOCK, ConstantStore, shared_onnx
from pocketprior.export.targets.openvino import shared_ir
from pocketprior.runtimes.openvino import the_core

WEIGHTS = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)


def test_equal_constants_have_one_place() -> None:
    store = ConstantStore()
    places = [store.offset(data) for data in (b"a" * 100, b"b" * 3, b"a" * 100, b"c")]
    assert places == [0, 128, 0, 192]
    assert all(place % _BLOCK == 0 for place in places)
    assert bytes(store.data[128:131]) == b"bbb"
    assert len(store.data) == 193


def graph(*weights: np.ndarray) -> onnx.ModelProto:
    """The sum of matrix products, and of a small constant."""
    names = [f"w{number}" for number in range(len(weights))]
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}x"]) for name in names]
    nodes.append(helper.make_node("Sum", [*(f"{name}x" for name in names), "small"], ["y"]))
    held = [numpy_helper.from_array(array, name) for name, array in zip(names, weights, strict=True)]
    held.append(numpy_helper.from_array(np.float32(0.5).reshape(1), "small"))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n, size in (("x", 40), ("y", 8)))
    model = helper.make_model(helper.make_graph(nodes, "graph", [x], [y], held), ir_version=10)
    model.opset_import[0].version = 20
    return model


def test_onnx_graphs_do_the_same_with_one_file_of_weights(tmp_path: Path) -> None:
    store, x = ConstantStore(), {"x": np.ones((1, 40), np.float32)}
    models = {"one": graph(WEIGHTS, 2 * WEIGHTS), "two": graph(3 * WEIGHTS, WEIGHTS)}
    for name, model in models.items():
        onnx.save(shared_onnx(model, store), tmp_path / f"{name}.onnx")
        assert not any(tensor.external_data for tensor in model.graph.initializer), "the model itself is left alone"
    (tmp_path / "onnx.bin").write_bytes(store.data)
    assert len(store.data) == 3 * WEIGHTS.nbytes
    for name, model in models.items():
        places = {
            t.name: len(t.external_data)
            for t in onnx.load(tmp_path / f"{name}.onnx", load_external_data=False).graph.initializer
        }
        assert places == {"w0": 3, "w1": 3, "small": 0}
        ours, theirs = (onnxruntime.InferenceSession(m) for m in (tmp_path / f"{name}.onnx", model.SerializeToString()))
        np.testing.assert_array_equal(ours.run(None, x)[0], theirs.run(None, x)[0])


def test_ir_does_the_same_without_what_it_says_twice(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    from xml.etree import ElementTree

    core = the_core()
    openvino.save_model(core.read_model(default_pack() / "predict.onnx"), tmp_path / "own.xml", compress_to_fp16=False)
    store = ConstantStore()
    store.offset(b"of another graph")
    xml = (tmp_path / "own.xml").read_text(encoding="utf-8")
    root = shared_ir(xml, (tmp_path / "own.bin").read_bytes(), store)
    (tmp_path / "other.xml").write_bytes(ElementTree.tostring(root))
    (tmp_path / "openvino.bin").write_bytes(store.data)
    assert (tmp_path / "other.xml").stat().st_size < 0.75 * len(xml)
    models = [
        core.read_model(tmp_path / "own.xml"),
        core.read_model(tmp_path / "other.xml", tmp_path / "openvino.bin"),
    ]
    image = np.random.default_rng(0).random((1, 3, 24, 32), np.float32)
    for model in models:
        model.reshape({"image": list(image.shape)})
    first, second = (
        core.compile_model(m, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"image": image}) for m in models
    )
    np.testing.assert_array_equal(first["base"], second["base"])
