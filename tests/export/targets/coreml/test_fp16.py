"""Programs in float16: as near as 16 bits allow, exact where they would not do, and refused where they cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.errors import UsageError
from pocketprior.export.targets.coreml.coreml_package import FLOAT16, FLOAT32, CoremlPackage, functions, write_package
from pocketprior.export.targets.coreml.fp16 import in_fp16
from pocketprior.runtimes.mil import read_package
from support.coreml_package import Made


@pytest.fixture(scope="module")
def half(made: Made) -> CoremlPackage:
    return in_fp16(made.package)


@pytest.fixture(scope="module")
def folder(half: CoremlPackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "half.mlpackage"
    write_package(half, path)
    return path


def kinds(package: CoremlPackage, *ops: str) -> set[int]:
    ((_, block),) = functions(package.spec)
    return {op.outputs[0].type.tensorType.dataType for op in block.operations if op.type in ops}


def test_is_near_the_truth(made: Made, folder: Path) -> None:
    inputs = made.inputs()
    truth = made.truth(inputs)
    rounded = read_package(folder).function("main").run(inputs, "fp16")["restored"]
    assert rounded.dtype == np.float32
    error = np.sqrt(np.mean(np.square(rounded - truth)))
    assert 1e-6 < error / np.abs(truth).max() < 1e-3


def test_angles_stay_exact(made: Made, folder: Path) -> None:
    """888 in float16 is known to 0.5 only: its sine would be anything."""
    inputs = made.inputs() | {"t": np.array([0.9173], np.float32)}
    truth = made.truth(inputs)
    rounded = read_package(folder).function("main").run(inputs, "fp16")["restored"]
    assert np.abs(rounded - truth).max() / np.abs(truth).max() < 4e-3


def test_types(half: CoremlPackage) -> None:
    assert kinds(half, "conv", "linear", "add") == {FLOAT16}
    assert kinds(half, "sin", "cos", "reduce_l2_norm") == {FLOAT32}
    function = half.spec.mlProgram.functions["main"]
    assert {value.type.tensorType.dataType for value in function.inputs} == {FLOAT32}
    ((_, block),) = functions(half.spec)
    results = [output for op in block.operations for output in op.outputs if output.name in block.outputs]
    assert [output.type.tensorType.dataType for output in results] == [FLOAT32]


def test_weights_take_half_the_bytes(made: Made, folder: Path) -> None:
    sizes = [(path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size for path in (folder, made.folder)]
    assert sizes[0] < 0.6 * sizes[1]


def test_what_is_not_zero_stays_so(made: Made, half: CoremlPackage) -> None:
    """The least length that is divided by, 1e-12."""
    ((_, before),), ((_, after),) = functions(made.package.spec), functions(half.spec)
    small = [
        op.outputs[0].name
        for op in before.operations
        if op.type == "const"
        and op.attributes["val"].type.tensorType.dataType == FLOAT32
        and 0 < np.abs(made.package.array(op.attributes["val"])).max() < 1e-8
    ]
    found = [
        half.array(op.attributes["val"])
        for op in after.operations
        if op.type == "const" and op.outputs[0].name.removesuffix("__fp16") in small
    ]
    assert len(small) == len(found) == 1
    assert found[0] > 0


def test_original_is_left_alone(made: Made) -> None:
    package = made.package
    before = package.spec.SerializeToString(deterministic=True), list(package.blobs)
    in_fp16(package)
    assert before == (package.spec.SerializeToString(deterministic=True), package.blobs)


def test_a_constant_that_does_not_fit(made: Made) -> None:
    package = made.package
    ((_, block),) = functions(package.spec)
    bias = next(op for op in block.operations if op.type == "const" and op.outputs[0].name == "p_last_bias")
    bias.attributes["val"].CopyFrom(package.value(np.full(3, 1e6, np.float32)))
    with pytest.raises(UsageError, match="'p_last_bias' exceeds 65504"):
        in_fp16(package)


@pytest.mark.parametrize("bound", [np.inf, np.finfo(np.float32).max])
def test_a_bound_that_is_none_becomes_the_largest_number(made: Made, bound: float) -> None:
    package = made.package
    ((_, block),) = functions(package.spec)
    bias = next(op for op in block.operations if op.type == "const" and op.outputs[0].name == "p_last_bias")
    bias.attributes["val"].CopyFrom(package.value(np.array([bound, -bound, 1], np.float32)))
    half = in_fp16(package)
    ((_, block),) = functions(half.spec)
    made_of = next(op for op in block.operations if op.outputs[0].name.startswith("p_last_bias"))
    assert half.array(made_of.attributes["val"]).tolist() == [65504, -65504, 1]
