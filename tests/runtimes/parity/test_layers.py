"""The first layer that breaks, in each kind of graph."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.pack.store import packed_file
from pocketprior.runtimes.openvino import the_core
from pocketprior.runtimes.parity.comparison import CompareOptions, compare
from pocketprior.runtimes.parity.findings import ParityReport
from pocketprior.runtimes.parity.layers import MODULE_KEY, inside_onnxruntime, inside_openvino
from support import packs
from support.planted_faults import edited, nth, weight

Known = tuple[Path, Path]


def run(known: Known, **options: object) -> ParityReport:
    return compare(known[0], CompareOptions(against=known[1], threads=1, layers=True, **options))  # type: ignore[arg-type]


def _second_convolution(model: onnx.ModelProto) -> None:
    node = nth(model, "Conv", 1)
    node.name = "the culprit"
    node.metadata_props.add(key=MODULE_KEY, value="denoiser.out")
    weight(model, node.input[1], lambda w: np.roll(w, 1, axis=0))


def test_a_changed_layer_is_named(known: Known, kept: Known) -> None:
    edited(known[0], "denoise", _second_convolution)
    report = run(known, floats=kept[0])
    (first,) = (layer for layer in report.layers if layer.broken)
    assert (first.graph, first.name, first.operator, first.module) == ("denoise", "the culprit", "Conv", "denoiser.out")
    assert first.found.psnr_db < 90
    after = report.layers[report.layers.index(first) + 1 :]
    assert {layer.operator for layer in after} <= {"DepthToSpace", "Identity"}


def test_without_another_float_graph_that_is_said(known: Known) -> None:
    edited(known[0], "denoise", _second_convolution)
    report = run(known)
    assert not report.layers
    assert "a float pack of the same model can stand in for it (--float)" in report.notes[-1]


def test_where_nothing_broke_the_worst_are_told(known: Known) -> None:
    report = run(known, runtime="openvino")
    assert report.ok
    assert {layer.graph for layer in report.layers} == {"encode", "predict", "denoise", "fused"}
    assert not any(layer.broken for layer in report.layers)


def test_one_kind_of_graph_that_held(known: Known) -> None:
    assert run(known).notes[-1] == "layers were not compared: nothing failed, and there is only one variant"


@pytest.fixture
def inputs(manifest: Manifest) -> dict[str, packs.NDArray]:
    random = np.random.default_rng(0)
    sizes = {"h": 16, "w": 24}
    return {
        name: random.random([sizes.get(s, s) for s in spec.shape], np.float32)
        for name, spec in manifest.graphs["denoise"].inputs.items()
    }


def test_ir_keeps_the_names_of_onnx(inputs: dict[str, packs.NDArray], built_pack: Path, tmp_path: Path) -> None:
    """What OpenVINO's own files give, layer by layer, is what the ONNX graph gives."""
    source = built_pack / "denoise.onnx"
    openvino.save_model(the_core().read_model(source), tmp_path / "denoise.xml", compress_to_fp16=False)
    expected = inside_onnxruntime(source, "denoise", inputs, "fp32")
    for path in (source, tmp_path / "denoise.xml"):
        found = inside_openvino(path, "denoise", inputs, "fp32")
        shared = [name for name in found if name in expected]
        assert len(shared) > 5
        for name in shared:
            np.testing.assert_allclose(found[name].array, expected[name].array, atol=1e-5)


def test_layers_of_fewer_bits_are_matched_in_their_order(known: Known) -> None:
    """Their names are counted anew: only the order of convolutions tells which is which."""

    def coded(model: onnx.ModelProto) -> None:
        _shifted_names(model)
        weight(model, nth(model, "Conv", 1).input[1], lambda w: np.round(4 * w) / 4)

    manifest = Manifest.load(known[0])
    shutil.copy(known[0] / "denoise.onnx", known[0] / "denoise.w4.onnx")
    model = onnx.load(known[0] / "denoise.w4.onnx")
    coded(model)
    (known[0] / "denoise.w4.onnx").write_bytes(model.SerializeToString())
    files = {**manifest.graphs["denoise"].files["onnx"], "w4": packed_file(known[0], "denoise.w4.onnx")}
    graphs = {**manifest.graphs, "denoise": replace(manifest.graphs["denoise"], files={"onnx": files})}
    replace(manifest, graphs=graphs).save(known[0])
    report = run(known, precision="w4")
    assert report.first is not None
    assert report.first[0].name == "quantization"
    (first,) = (layer for layer in report.layers if layer.broken)
    assert (first.graph, first.operator) == ("denoise", "Conv")
    assert first.name == nth(model, "Conv", 1).name


def _shifted_names(model: onnx.ModelProto) -> None:
    """Every array gets the name of the one before it, every node a name of its own."""
    inner = [name for node in model.graph.node for name in node.output]
    inner.remove("v")
    renamed = dict(zip(inner, ["w", *inner], strict=False))
    for number, node in enumerate(model.graph.node):
        node.name = f"node {number}"
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
