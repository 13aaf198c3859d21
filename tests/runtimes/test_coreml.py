"""Core ML packages are run by our interpreter, or by Core ML where that is, and nothing else than was asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pocketprior.core.errors import GraphError, MissingExtraError, PackError, UsageError
from pocketprior.core.pack.manifest import ArraySpec, GraphSpec
from pocketprior.runtimes import coreml
from pocketprior.runtimes.coreml import CORE_ML, INTERPRETER, engine
from pocketprior.runtimes.mil.schema import Model
from pocketprior.runtimes.options import RuntimeOptions

FLOAT16, FLOAT32, ARRAY_FLOAT32 = 10, 11, 65568
IMAGE = ArraySpec("float32", (1, 3, "h", "w"))
SPEC = GraphSpec({"image": IMAGE}, {"base": IMAGE}, {})
IMAGES = np.random.default_rng(0).random((1, 3, 8, 12), np.float32)


def of_type(kind: int, *shape: int) -> dict[str, Any]:
    """A tensor of these sizes, 0 for one that is free."""
    sizes = [{"constant": {"size": size}} if size else {"unknown": {}} for size in shape]
    return {"tensorType": {"dataType": kind, "rank": len(shape), "dimensions": sizes}}


def function(factor: float) -> dict[str, Any]:
    """base = image * factor in 16 bits, at any size."""
    image, half = of_type(FLOAT32, 1, 3, 0, 0), of_type(FLOAT16, 1, 3, 0, 0)

    def word(text: str) -> dict[str, Any]:
        return {"type": of_type(2), "immediateValue": {"tensor": {"strings": {"values": [text]}}}}

    def number(value: float) -> dict[str, Any]:
        stored = np.float16(value).tobytes()
        return {"type": of_type(FLOAT16), "immediateValue": {"tensor": {"bytes": {"values": stored}}}}

    def op(kind: str, output: str, result: dict[str, Any], **inputs: Any) -> dict[str, Any]:
        bound = {n: {"arguments": [{"name": v} if isinstance(v, str) else {"value": v}]} for n, v in inputs.items()}
        return {"type": kind, "inputs": bound, "outputs": [{"name": output, "type": result}]}

    operations = [
        op("cast", "half", half, x="image", dtype=word("fp16")),
        op("mul", "scaled", half, x="half", y=number(factor)),
        op("cast", "base", image, x="scaled", dtype=word("fp32")),
    ]
    block = {"outputs": ["base"], "operations": operations}
    inputs = [{"name": "image", "type": image}]
    return {"inputs": inputs, "opset": "CoreML7", "block_specializations": {"CoreML7": block}}


def described(name: str, shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """An image that may have any size, or `shape` alone."""
    array: dict[str, Any] = {"dataType": ARRAY_FLOAT32, "shape": shape or (1, 3, 8, 12)}
    if shape is None:
        ranges = [(1, 1), (3, 3), (4, 64), (4, 64)]
        array["shapeRange"] = {"sizeRanges": [{"lowerBound": low, "upperBound": high} for low, high in ranges]}
    return {"name": name, "type": {"multiArrayType": array}}


def write(folder: Path, shape: tuple[int, ...] | None = None, **factors: float) -> Path:
    """A package with a function for each factor; its Manifest.json."""
    interface = {"input": [described("image", shape)], "output": [described("base", shape)]}
    several = {"functions": [{"name": name, **interface} for name in factors]}
    description = several if len(factors) > 1 else interface
    functions = {name: function(factor) for name, factor in factors.items()}
    model = Model(specificationVersion=8, description=description, mlProgram={"functions": functions})
    (folder / "Data").mkdir(parents=True)
    (folder / "Data" / "model.mlmodel").write_bytes(model.SerializeToString())
    items = {"1": {"path": "model.mlmodel"}}
    manifest = folder / "Manifest.json"
    manifest.write_text(json.dumps({"rootModelIdentifier": "1", "itemInfoEntries": items}))
    return manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write(tmp_path / "predict.mlpackage", main=0.1)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """coremltools as it is on macOS. made: what models were made with. refuses, fails: why they do not load, or run."""
    made: list[tuple[Any, ...]] = []
    library = SimpleNamespace(made=made, fails=None, refuses=None)

    class MLModel:
        def __init__(self, path: str, compute_units: str, function_name: str | None = None) -> None:
            if library.refuses:
                warnings.warn(library.refuses, RuntimeWarning, stacklevel=2)
            made.append((path, compute_units, function_name))

        def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            if library.fails:
                raise library.fails
            return {"base": inputs["image"].astype(np.float16) * np.float16(0.1)}

    library.models = SimpleNamespace(MLModel=MLModel)
    library.ComputeUnit = {name: name for name in ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")}
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "coremltools", library)
    return library


@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize("size", [(8, 12), (4, 64)])
def test_the_interpreter_computes_in_float32(size: tuple[int, int], manifest: Path) -> None:
    image = np.random.default_rng(1).random((1, 3, *size), np.float32)
    found = coreml.open(manifest, "predict", SPEC)(image=image)["base"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, image * np.float32(np.float16(0.1)))
    assert engine() == INTERPRETER


@pytest.mark.usefixtures("linux")
def test_the_interpreter_rounds_to_float16(manifest: Path) -> None:
    found = coreml.open(manifest, "predict", SPEC, RuntimeOptions(arithmetic="fp16"))(image=IMAGES)["base"]
    np.testing.assert_array_equal(found, IMAGES.astype(np.float16) * np.float16(0.1))


@pytest.mark.usefixtures("linux")
def test_an_array_that_is_not_contiguous(manifest: Path) -> None:
    graph = coreml.open(manifest, "predict", SPEC)
    turned = np.ascontiguousarray(IMAGES.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(graph(image=turned)["base"], graph(image=IMAGES)["base"])


@pytest.mark.usefixtures("linux")
def test_a_function_goes_by_the_name_of_the_graph(tmp_path: Path) -> None:
    manifest = write(tmp_path / "all.mlpackage", predict=0.5, denoise=0.25)
    for name, factor in (("predict", 0.5), ("denoise", 0.25)):
        found = coreml.open(manifest, name, SPEC, RuntimeOptions(arithmetic="fp16"))(image=np.ones_like(IMAGES))["base"]
        assert found.max() == factor
    with pytest.raises(PackError, match="has no function 'fused', and no 'main'; it has: denoise, predict"):
        coreml.open(manifest, "fused", SPEC)


@pytest.mark.usefixtures("linux")
def test_a_function_that_the_manifest_names(tmp_path: Path) -> None:
    manifest = write(tmp_path / "all.mlpackage", predict=0.5, rain__predict=0.25)
    for function, factor in (("", 0.5), ("rain__predict", 0.25)):
        graph = coreml.open(manifest, "predict", replace(SPEC, function=function), RuntimeOptions(arithmetic="fp16"))
        assert graph(image=np.ones_like(IMAGES))["base"].max() == factor
    with pytest.raises(PackError, match="has no function 'haze__predict'"):
        coreml.open(manifest, "predict", replace(SPEC, function="haze__predict"))


WITHOUT_TORCH = """
import sys
import warnings
from pathlib import Path

import numpy as np

from pocketprior.core.pack.manifest import ArraySpec, GraphSpec
from pocketprior.runtimes import coreml

image = ArraySpec("float32", (1, 3, "h", "w"))
graph = coreml.open(Path(sys.argv[1]), "predict", GraphSpec({"image": image}, {"base": image}, {}))
graph(image=np.zeros((1, 3, 8, 8), np.float32))
sys.exit(", ".join({"torch", "coremltools", "onnx", "onnxruntime"} & set(sys.modules)) or None)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is reached through coremltools")
def test_the_interpreter_loads_neither_torch_nor_coremltools(manifest: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, str(manifest)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            RuntimeOptions(device="NPU"),
            r"expected a device of MIL interpreter \(CPU\), got 'NPU'; Core ML, which has",
        ),
        (
            RuntimeOptions(arithmetic="bf16"),
            "expected an arithmetic of Core ML programs \\(fp32, fp16\\), got 'bf16'",
        ),
    ],
)
def test_what_the_interpreter_has_not(options: RuntimeOptions, message: str, manifest: Path) -> None:
    with pytest.raises(UsageError, match=message):
        coreml.open(manifest, "predict", SPEC, options)


def test_another_graph_than_the_manifest_says(manifest: Path) -> None:
    for spec in (
        GraphSpec({"photo": IMAGE}, {"base": IMAGE}, {}),
        GraphSpec({"image": IMAGE}, {"base": IMAGE, "more": IMAGE}, {}),
        GraphSpec({"image": ArraySpec("float32", (1, 4, "h", "w"))}, {"base": IMAGE}, {}),
        GraphSpec({"image": IMAGE}, {"base": ArraySpec("float32", (1, 1, "h", "w"))}, {}),
    ):
        with pytest.raises(PackError, match=r"Manifest.json, (in|out)puts: the manifest says .*export the pack"):
            coreml.open(manifest, "predict", spec)


def test_a_graph_of_one_size_alone(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="the manifest says"):
        coreml.open(write(tmp_path / "x.mlpackage", shape=(1, 3, 8, 12), main=0.1), "predict", SPEC)


def test_a_package_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"Manifest.json cannot be read .*expected the manifest of a Core ML package"):
        coreml.open(tmp_path / "x.mlpackage" / "Manifest.json", "predict", SPEC)


def test_a_package_that_is_cut_off(manifest: Path) -> None:
    model = manifest.parent / "Data" / "model.mlmodel"
    model.write_bytes(model.read_bytes()[:-5])
    with pytest.raises(PackError, match="is no Core ML specification, or a damaged one"):
        coreml.open(manifest, "predict", SPEC)


@pytest.mark.usefixtures("linux")
def test_a_call_that_fails(manifest: Path) -> None:
    graph = coreml.open(manifest, "predict", SPEC)
    with pytest.raises(GraphError, match=r"predict.mlpackage, function 'main', input 'image': .*, got float32 \[1, 4"):
        graph(image=np.zeros((1, 4, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("device", "units"), [("CPU", "CPU_ONLY"), ("GPU", "CPU_AND_GPU"), ("NPU", "CPU_AND_NE"), ("ALL", "ALL")]
)
def test_core_ml_is_used_on_macos(device: str, units: str, manifest: Path, mac: SimpleNamespace) -> None:
    graph = coreml.open(manifest, "predict", SPEC, RuntimeOptions(device=device, arithmetic="fp16"))
    assert mac.made == [(str(manifest.parent), units, None)]
    assert engine() == CORE_ML
    found = graph(image=IMAGES)["base"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, IMAGES.astype(np.float16) * np.float16(0.1))


def test_core_ml_is_told_which_function(tmp_path: Path, mac: SimpleNamespace) -> None:
    manifest = write(tmp_path / "all.mlpackage", main=0.5, denoise=0.25)
    for name in ("predict", "denoise"):
        coreml.open(manifest, name, SPEC)
    assert [function_name for _, _, function_name in mac.made] == ["main", "denoise"]


def test_core_ml_may_know_more_ops_than_we_do(manifest: Path, mac: SimpleNamespace) -> None:
    path = manifest.parent / "Data" / "model.mlmodel"
    model = Model.FromString(path.read_bytes())
    model.mlProgram.functions["main"].block_specializations["CoreML7"].operations[1].type = "restore"
    path.write_bytes(model.SerializeToString())
    coreml.open(manifest, "predict", SPEC)
    assert len(mac.made) == 1


def test_core_ml_cannot_open_or_run_it(manifest: Path, mac: SimpleNamespace) -> None:
    graph = coreml.open(manifest, "predict", SPEC)
    mac.fails = Exception("no memory\nat some place")
    with pytest.raises(GraphError, match=r"graph 'predict': Core ML could not run it \(no memory\)"):
        graph(image=IMAGES)
    mac.refuses = "not compiled"
    with pytest.raises(PackError, match=r"Core ML cannot open .*predict.mlpackage \(not compiled\)"):
        coreml.open(manifest, "predict", SPEC)


def test_core_ml_without_its_package(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pocketprior\[coreml\]'"):
        coreml.open(manifest, "predict", SPEC)


@pytest.mark.usefixtures("mac")
def test_what_core_ml_has_not(manifest: Path) -> None:
    with pytest.raises(UsageError, match="expected a device of Core ML \\(CPU, GPU, NPU, ALL\\), got 'NPU9'"):
        coreml.open(manifest, "predict", SPEC, RuntimeOptions(device="NPU9"))


@pytest.mark.mac
@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML is on macOS alone")
def test_core_ml_and_the_interpreter_agree(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = coreml.open(manifest, "predict", SPEC)(image=IMAGES)["base"]
    monkeypatch.setattr(sys, "platform", "linux")
    found = coreml.open(manifest, "predict", SPEC, RuntimeOptions(arithmetic="fp16"))(image=IMAGES)["base"]
    np.testing.assert_allclose(native, found, rtol=2**-10)
