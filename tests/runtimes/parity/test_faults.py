"""Planted faults: each is caught, at the right stage, in the right graph; what is not spoilt is never accused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from pocketprior.core.pack.manifest import FILE
from pocketprior.core.restore.reference import load
from pocketprior.export.quantization.search import write_onnx_pack
from pocketprior.export.systems.dtpm import DtpmSource
from pocketprior.export.targets.calibration import DamagedPhoto, FloatPack, open_float
from pocketprior.export.targets.weights import uniform_precisions
from pocketprior.export.writer import golden_restoration
from pocketprior.export.writer.golden_restoration import settle
from support import packs, system_packs
from support.exported_packs import Known, exported
from support.planted_faults import after, attribute_of_all, before, edited, facts, nth, other_operator, rehashed, weight
from support.references import accused, known_pack, record_pack
from support.small_models import save_small

Edit = Callable[[onnx.ModelProto], None]
LOOSE = {"coded": {"reason": "weights that were never trained", "psnr_db": 30, "max_abs": 1, "shift": 0.05}}


class Fault(NamedTuple):
    """A change of one graph, and where the report must say that it is: stage, and words of the check."""

    stage: str
    words: str
    graph: str
    plant: Edit


@pytest.fixture(scope="module")
def dtpm(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Trained-like, exported and recorded in PyTorch; one photo is cut into tiles."""
    folder = tmp_path_factory.mktemp("dtpm")
    model, semantic = save_small(folder)
    return exported(folder, DtpmSource(model, str(semantic), steps=2), ((60, 166), (33, 42)))


@pytest.fixture(scope="module")
def diffir(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A tiny pack, recorded from itself."""
    folder = tmp_path_factory.mktemp("diffir")
    known_pack(folder / "pack", system_packs.DIFFIR)
    record_pack(folder / "pack", folder / "known.npz", [((90, 130), 5, 1.0), ((33, 42), 6, 0.5)])
    return Known(folder / "pack", folder / "known.npz")


@pytest.fixture(scope="module")
def adjustable(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A tiny pack whose graphs take the amount, recorded from itself."""
    folder = tmp_path_factory.mktemp("adjustable")
    known_pack(folder / "pack", packs.ADJUSTABLE)
    record_pack(folder / "pack", folder / "known.npz", [((61, 130), 5, 1.0, 1.5), ((33, 42), 6, 0.5, 0.6)])
    return Known(folder / "pack", folder / "known.npz")


@pytest.mark.parametrize("system", ["dtpm", "adjustable", "diffir"])
def test_nothing_is_accused_before(system: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(system).run()
    assert report.ok, accused(report)
    measured = {stage.name for stage in report.sources if stage.checks}
    assert {"files", "facts", "conversion", "pipeline", "picture", "golden"} <= measured
    assert ("tiling" in measured) == ("forms" in measured) == (system != "diffir")


def _first(model: onnx.ModelProto, operator: str, place: int, number: int = 0) -> str:
    """Name of an input of a node."""
    return nth(model, operator, number).input[place]


def _permuted(model: onnx.ModelProto) -> None:
    weight(model, _first(model, "Conv", 1), lambda w: np.roll(w, 1, axis=0))


def _transposed(model: onnx.ModelProto) -> None:
    weight(model, _first(model, "Conv", 1, 1), lambda w: w.swapaxes(2, 3))


def _no_bias(model: onnx.ModelProto) -> None:
    weight(model, _first(model, "Conv", 2, 2), np.zeros_like)


def _no_clamp(model: onnx.ModelProto) -> None:
    node = nth(model, "Clip", -1)
    node.op_type = "Identity"
    del node.input[1:]


def _step_constant(model: onnx.ModelProto) -> None:
    """One of the numbers of the sampler, half a percent off."""
    scalars = [t.name for t in model.graph.initializer if not t.dims and t.data_type == onnx.TensorProto.FLOAT]
    muls = [name for node in model.graph.node if node.op_type == "Mul" for name in node.input if name in scalars]
    weight(model, muls[-1], lambda w: w * 1.005)


def _shifted(model: onnx.ModelProto) -> None:
    """Padded on one side: the picture moves by a pixel."""
    node = next(n for n in model.graph.node if n.op_type == "Conv" and list(_attribute(n, "pads").ints) == [1, 1, 1, 1])
    _attribute(node, "pads").ints[:] = [0, 0, 2, 2]


def _attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    return next(attribute for attribute in node.attribute if attribute.name == name)


def _swapped_adapters(model: onnx.ModelProto) -> None:
    """Two weights of one shape change places."""
    shapes: dict[tuple[int, ...], list[onnx.TensorProto]] = {}
    for node in (n for n in model.graph.node if n.op_type == "Conv"):
        (tensor,) = (t for t in model.graph.initializer if t.name == node.input[1])
        shapes.setdefault(tuple(tensor.dims), []).append(tensor)
    first, second = next(tensors for tensors in shapes.values() if len(tensors) > 1)[:2]
    assert first.raw_data != second.raw_data
    first.raw_data, second.raw_data = second.raw_data, first.raw_data


def _overflow(model: onnx.ModelProto) -> None:
    """Numbers beyond 65504 in float16 on the way, as activations of large models have them."""
    after(model, "v", "Mul", np.float32([1e-6]))
    after_name = "planted"
    model.graph.node.insert(-1, onnx.helper.make_node("Mul", [after_name, "large"], ["wide"]))
    model.graph.node.insert(-1, onnx.helper.make_node("Cast", ["wide"], ["half"], to=onnx.TensorProto.FLOAT16))
    model.graph.node.insert(-1, onnx.helper.make_node("Cast", ["half"], ["back"], to=onnx.TensorProto.FLOAT))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([1e6]), "large"))
    model.graph.node[-1].input[0] = "back"


def _reversed_channels(model: onnx.ModelProto, array: str, *, given: bool) -> None:
    (before if given else after)(model, array, "Gather", np.array([2, 1, 0]), axis=1)


BGR_IN = partial(_reversed_channels, array="image", given=True)
BGR_OUT = partial(_reversed_channels, array="base", given=False)

GRAPHS = {
    "permuted weight": Fault("conversion", "denoise, call 0, v", "denoise", _permuted),
    "permuted weight of the encoder": Fault("conversion", "encode, call 0, code", "encode", _permuted),
    "transposed kernel": Fault("conversion", "predict, call 0, base", "predict", _transposed),
    "dropped bias": Fault("conversion", "predict, call 0, base", "predict", _no_bias),
    "missing clamp": Fault("conversion", "fused, call 0, restored", "fused", _no_clamp),
    "wrong step constant": Fault("conversion", "fused, call 0, restored", "fused", _step_constant),
    "shift by a pixel": Fault("conversion", "predict, call 0, base", "predict", _shifted),
    "channels swapped on the way in": Fault("conversion", "predict, call 0, base", "predict", BGR_IN),
    "output in BGR": Fault("conversion", "predict, call 0, base", "predict", BGR_OUT),
    "strength ignored": Fault(
        "conversion",
        "fused, call",
        "fused",
        lambda model: before(model, "strength", "Max", np.float32([1])),
    ),
    "gain doubled": Fault(
        "conversion", "fused, call 0", "fused", lambda model: before(model, "strength", "Mul", np.float32([2]))
    ),
    "wrong time": Fault(
        "conversion", "denoise, call 0", "denoise", lambda model: before(model, "t", "Mul", np.float32([0.9]))
    ),
    "time that stands still": Fault(
        "conversion", "denoise, call 1,", "denoise", lambda model: before(model, "t", "Max", np.float32([1]))
    ),
    "brightness shift of one level": Fault(
        "conversion", "predict, call 0", "predict", lambda model: after(model, "base", "Add", np.float32([1 / 255]))
    ),
    "brightness shift of a fiftieth of a level": Fault(
        "conversion", "predict, call 0", "predict", lambda model: after(model, "base", "Add", np.float32([8e-5]))
    ),
    "gamma": Fault(
        "conversion", "fused, call 0", "fused", lambda model: after(model, "restored", "Pow", np.float32([1.001]))
    ),
    "overflow of float16": Fault("conversion", "are not finite", "denoise", _overflow),
    "another activation": Fault("conversion", "denoise, call 0", "denoise", partial(other_operator, "Gelu", "Relu")),
    "approximate activation": Fault(
        "conversion", "denoise, call 0", "denoise", partial(attribute_of_all, "Gelu", "approximate", "tanh")
    ),
    "swapped adapters": Fault("conversion", "denoise, call 0", "denoise", _swapped_adapters),
    "pixel shuffle of another order": Fault(
        "conversion", "predict, call 0", "predict", partial(attribute_of_all, "DepthToSpace", "mode", "DCR")
    ),
}


@pytest.mark.parametrize("fault", GRAPHS.values(), ids=GRAPHS)
def test_a_changed_graph(fault: Fault, dtpm: Known, tmp_path: Path) -> None:
    pack = dtpm.copy(tmp_path)
    edited(pack, fault.graph, fault.plant)
    told = accused(dtpm.run(pack))
    assert told.startswith(f"{fault.stage}: {fault.graph}, ")
    assert fault.words in told


AMOUNTS = {
    "amount ignored": ("amplitude", "predict", lambda model: before(model, "amount", "Max", np.float32([1.5]))),
    "amount limited to 1": ("base", "predict", lambda model: before(model, "amount", "Min", np.float32([1]))),
    "amplitude doubled": ("amplitude", "predict", lambda model: after(model, "amplitude", "Mul", np.float32([2]))),
    "amount ignored in one graph": (
        "restored",
        "fused",
        lambda model: before(model, "amount", "Max", np.float32([1.5])),
    ),
}


@pytest.mark.parametrize(("array", "graph", "plant"), AMOUNTS.values(), ids=AMOUNTS)
def test_a_graph_with_another_amount(array: str, graph: str, plant: Edit, adjustable: Known, tmp_path: Path) -> None:
    pack = adjustable.copy(tmp_path)
    edited(pack, graph, plant)
    told = accused(adjustable.run(pack))
    assert told.startswith(f"conversion: {graph}, call ")
    assert f", {array}, " in told


def test_a_graph_of_another_checkpoint(diffir: Known, tmp_path: Path) -> None:
    pack = diffir.copy(tmp_path)
    (pack / "compose.onnx").write_bytes(packs.graph_bytes("compose", system_packs.DIFFIR, weights="other"))
    rehashed(pack)
    assert accused(diffir.run(pack)).startswith("conversion: compose, call 0, restored")


def test_a_graph_that_is_cut_off(diffir: Known, tmp_path: Path) -> None:
    pack = diffir.copy(tmp_path)
    whole = (pack / "encode.onnx").read_bytes()
    (pack / "encode.onnx").write_bytes(whole[: len(whole) // 2])
    assert accused(diffir.run(pack)).startswith("files: encode.onnx: ")
    rehashed(pack)
    report = diffir.run(pack)
    told = accused(report)
    assert told.startswith("conversion: ")
    assert "cannot open" in told
    assert not report.ok


def test_graphs_that_changed_places(diffir: Known, tmp_path: Path) -> None:
    pack = diffir.copy(tmp_path)
    shutil.copy(pack / "encode.onnx", pack / "compose.onnx")
    rehashed(pack)
    told = accused(diffir.run(pack))
    assert told.startswith("conversion: ")
    assert "compose.onnx, inputs" in told


def test_a_stale_hash(diffir: Known, tmp_path: Path) -> None:
    pack = diffir.copy(tmp_path)
    edited(pack, "denoise", lambda model: weight(model, "state", lambda w: 1.0001 * w))
    text = (pack / FILE).read_text()
    (pack / FILE).write_text(text.replace(_hash_of(text, "denoise.onnx"), _hash_of(text, "encode.onnx")))
    report = diffir.run(pack)
    assert accused(report).startswith("files: denoise.onnx: ")
    assert [stage.name for stage in report.sources] == ["files"]
    assert not report.ok


def _hash_of(manifest: str, file: str) -> str:
    return manifest.split(f'"{file}", "')[1][:64]


@pytest.fixture(scope="module")
def floats(dtpm: Known) -> FloatPack:
    """The DTPM, with the ranges of what was recorded."""
    return open_float(dtpm.pack, _calibration(dtpm, 1))


def _calibration(known: Known, darker: int) -> list[DamagedPhoto]:
    recording = load(known.recording)
    photos = [recording.arrays[case.photo] // darker for case in recording.about.cases]
    return [DamagedPhoto(f"{seed}", photo, photo, seed) for seed, photo in enumerate(photos)]


@pytest.fixture(scope="module")
def eight_bits(dtpm: Known, floats: FloatPack, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """The DTPM with its weights in 8 bits and integer arithmetic; the pack tells its own limits."""
    folder = tmp_path_factory.mktemp("int8") / "pack"
    _quantize(floats, folder, "int8")
    facts(folder, {"limits": LOOSE})
    return Known(folder, dtpm.recording)


def _quantize(floats: FloatPack, folder: Path, level: str) -> None:
    folder.mkdir()
    settle(folder, write_onnx_pack(floats, uniform_precisions(floats.layers, level), folder, level), {})


def test_eight_bits_hold(eight_bits: Known, dtpm: Known) -> None:
    report = eight_bits.run(floats=dtpm.pack)
    assert report.ok, accused(report)
    held = {stage.name: stage for stage in report.sources}
    assert held["conversion"].checks
    assert held["quantization"].checks
    assert held["precision"].reason == "nothing is computed in 16 bits"


def test_eight_bits_without_their_floats(eight_bits: Known) -> None:
    """The error of the conversion is then in that of the quantization, and the report says so."""
    report = eight_bits.run()
    assert report.ok, accused(report)
    assert {s.name: s.reason for s in report.sources}["conversion"].startswith("the pack has no float32 graphs")


def _dequantized(place: int, change: Callable[[NDArray[Any]], NDArray[Any]], model: onnx.ModelProto) -> None:
    """The first activation is decoded with another scale (1) or zero point (2) than it was coded with."""
    coded = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    node = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in coded)
    (old,) = (onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[place])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(change(old), old.dtype), "planted"))
    node.input[place] = "planted"


CODED = {
    "scale off": partial(_dequantized, 1, lambda scale: 1.3 * scale),
    "zero point off": partial(_dequantized, 2, lambda zero: zero + 9),
    "codes moved": lambda model: weight(model, _codes(model), lambda w: np.roll(w, 1, axis=0)),
}


def _codes(model: onnx.ModelProto) -> str:
    return next(t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4)


@pytest.mark.parametrize("plant", CODED.values(), ids=CODED)
def test_changed_codes(plant: Edit, eight_bits: Known, dtpm: Known, tmp_path: Path) -> None:
    pack = eight_bits.copy(tmp_path)
    edited(pack, "predict", plant)
    assert accused(eight_bits.run(pack, floats=dtpm.pack)).startswith("quantization: predict, call 0, base")


def test_a_stale_calibration(dtpm: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of photos that are much darker."""
    monkeypatch.setattr(golden_restoration, "COARSE_SLACK", 254)  # writing such a pack is refused: parity has to see it
    _quantize(open_float(dtpm.pack, _calibration(dtpm, 16)), tmp_path / "pack", "int8")
    facts(tmp_path / "pack", {"limits": LOOSE})
    told = accused(dtpm.run(tmp_path / "pack", floats=dtpm.pack))
    assert told.startswith("quantization: predict, call 0, base")


def test_an_overflow_of_half_weights(dtpm: Known, floats: FloatPack, tmp_path: Path) -> None:
    _quantize(floats, tmp_path / "pack", "fp16")
    report = dtpm.run(tmp_path / "pack", floats=dtpm.pack)
    assert report.ok, accused(report)
    edited(tmp_path / "pack", "predict", _infinite)
    assert accused(dtpm.run(tmp_path / "pack", floats=dtpm.pack)).startswith("precision: predict, call 0, base")


def _infinite(model: onnx.ModelProto) -> None:
    """The largest weight is what float16 makes of 70000."""
    half = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16 and len(t.dims) == 4)
    weight(model, half.name, lambda w: np.where(w == w.max(), np.float16(np.inf), w))
