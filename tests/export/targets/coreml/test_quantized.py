"""A plan as a Core ML package computes with the numbers that the ONNX graphs of the same plan have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketprior.core.errors import UsageError
from pocketprior.export.targets.calibration import Range, params_of
from pocketprior.export.targets.coreml.coreml_package import CoremlPackage, functions, raise_version, write_package
from pocketprior.export.targets.coreml.fp16 import in_fp16
from pocketprior.export.targets.coreml.quantized_coreml import PALETTES, ConvRanges, palette, quantized_package
from pocketprior.export.targets.weights import array_digest, bias_shift, dequantize, quantize_weights
from pocketprior.runtimes.mil import MilProgram, read_package
from support.coreml_package import Made

LAYERS = ("first", "second", "depth", "film", "last")


@pytest.fixture(scope="module")
def weights(made: Made) -> dict[str, NDArray[np.float32]]:
    return {name: made.graph.module.get_submodule(name).weight.detach().numpy() for name in LAYERS}


@pytest.fixture(scope="module")
def seen(made: Made) -> dict[str, list[NDArray[np.float32]]]:
    """What goes into and comes out of each convolution."""
    arrays: dict[str, NDArray[np.float32]] = {}
    program = read_package(made.folder).function("main")
    inputs = made.inputs()
    kinds: dict[str, str] = {}

    def observe(kind: str, name: str, array: NDArray[np.float32]) -> None:
        if array.ndim == 4:
            kinds.setdefault(kind, name)
            arrays[name] = array

    program.run(inputs, observe=observe)
    return {
        "first": [inputs["x"], arrays[kinds["relu"]]],
        "second": [arrays[kinds["add"]], arrays["second__conv2d"]],
        "depth": [arrays["second__conv2d"], arrays["depth__conv2d"]],
        "last": [arrays[kinds["mul"]], arrays["restored"]],
    }


def range_of(array: NDArray[np.float32]) -> Range:
    means = array.mean(axis=(0, 2, 3), dtype=np.float64)
    return Range(min(0.0, float(array.min())), max(0.0, float(array.max())), array.size, tuple(means.tolist()))


@pytest.fixture(scope="module")
def uses(
    weights: dict[str, NDArray[np.float32]], seen: dict[str, list[NDArray[np.float32]]]
) -> dict[str, list[ConvRanges]]:
    return {array_digest(weights[name]): [ConvRanges(*map(range_of, arrays))] for name, arrays in seen.items()}


def plan(weights: dict[str, NDArray[np.float32]], level: str, names: Sequence[str] = LAYERS) -> dict[str, str]:
    """Of one level; a linear layer has no integer arithmetic."""
    allowed = {name for name in names if level != "int8" or weights[name].ndim == 4}
    return {array_digest(weights[name]): level if name in allowed else "fp32" for name in LAYERS}


def opened(package: CoremlPackage, folder: Path) -> MilProgram:
    write_package(package, folder / "coded.mlpackage")
    return read_package(folder / "coded.mlpackage").function("main")


def constants(package: CoremlPackage, folder: Path) -> dict[str, NDArray[np.float32]]:
    """What each convolution and linear layer computes with, as the interpreter decodes it."""
    program = opened(package, folder)
    return {
        next(iter(step.outputs)).partition("__")[0]: np.asarray(step.fixed["weight"])
        for step in program.steps
        if step.op in ("conv", "linear")
    }


@pytest.mark.parametrize("version", [8, 9])
@pytest.mark.parametrize(("level", "bits"), PALETTES.items())
def test_palettes(
    made: Made,
    weights: dict[str, NDArray[np.float32]],
    uses: dict[str, list[ConvRanges]],
    level: str,
    bits: int,
    version: int,
    tmp_path: Path,
) -> None:
    package = made.package
    raise_version(package.spec, version)
    found = constants(quantized_package(package, plan(weights, level), uses), tmp_path)
    for name, array in weights.items():
        expected = palette(array, bits)
        stem = "restored" if name == "last" else name
        np.testing.assert_array_equal(found[stem], expected.table[expected.indices], err_msg=name)


@pytest.mark.parametrize("level", ["fp16", "w8", "w4"])
def test_weights_are_those_of_every_runtime(
    made: Made,
    weights: dict[str, NDArray[np.float32]],
    uses: dict[str, list[ConvRanges]],
    level: str,
    tmp_path: Path,
) -> None:
    found = constants(quantized_package(made.package, plan(weights, level), uses), tmp_path)
    assert len(found) == len(LAYERS)
    for name, array in weights.items():
        expected = (
            array.astype(np.float16) if level == "fp16" else dequantize(quantize_weights(array, level), array.shape)
        )
        stem = "restored" if name == "last" else name
        np.testing.assert_array_equal(found[stem], expected.astype(np.float32), err_msg=name)


def test_biases_take_back_the_mean(
    made: Made, weights: dict[str, NDArray[np.float32]], uses: dict[str, list[ConvRanges]], tmp_path: Path
) -> None:
    """Where the network had no bias it gets one."""
    program = opened(quantized_package(made.package, plan(weights, "w4", ["second"]), uses), tmp_path)
    array = weights["second"]
    means = np.array(uses[array_digest(array)][0].before.means)
    shift = bias_shift(dequantize(quantize_weights(array, "w4"), array.shape) - array, means)
    bias = next(step.fixed["bias"] for step in program.steps if "second__conv2d" in step.outputs)
    np.testing.assert_allclose(bias, -shift, rtol=1e-6)
    assert np.abs(shift).max() > 1e-4


def test_arrays_pass_through_eight_bits(
    made: Made, weights: dict[str, NDArray[np.float32]], uses: dict[str, list[ConvRanges]], tmp_path: Path
) -> None:
    chosen = ["first", "depth"]
    program = opened(quantized_package(made.package, plan(weights, "int8", chosen), uses), tmp_path)
    inputs, arrays = made.inputs(), dict[str, NDArray[np.float32]]()
    program.run(inputs, observe=lambda _, name, array: arrays.__setitem__(name, array))
    arrays |= inputs
    rounded = {name.removesuffix("__decoded"): array for name, array in arrays.items() if name.endswith("__decoded")}
    assert set(rounded) == {"x", "relu", "second__conv2d", "depth__conv2d"}
    ends = [uses[array_digest(weights[name])][0] for name in chosen]
    for name, values in (("x", ends[0].before), ("depth__conv2d", ends[1].after)):
        scale, zero = params_of(values)
        codes = np.clip(np.round(arrays[name] / np.float32(scale)) + zero, 0, 255)
        np.testing.assert_allclose(rounded[name], (codes - zero) * np.float32(scale), rtol=1e-6)


@pytest.mark.parametrize(("level", "version"), [("w8", 8), ("fp16", 8), ("int8", 8), ("w4", 9)])
def test_package_asks_for_what_its_levels_need(
    made: Made, weights: dict[str, NDArray[np.float32]], uses: dict[str, list[ConvRanges]], level: str, version: int
) -> None:
    assert quantized_package(made.package, plan(weights, level), uses).spec.specificationVersion == version


def test_a_layer_that_is_not_there(made: Made, uses: dict[str, list[ConvRanges]]) -> None:
    with pytest.raises(UsageError, match="the Core ML package lacks 1 layers of the plan"):
        quantized_package(made.package, {"0" * 64: "w8"}, uses)


@pytest.mark.parametrize("level", ["w8", "w4", "int8", "palette6"])
def test_plans_in_half(
    made: Made, weights: dict[str, NDArray[np.float32]], uses: dict[str, list[ConvRanges]], level: str, tmp_path: Path
) -> None:
    coded_package = quantized_package(made.package, plan(weights, level), uses)
    (tmp_path / "whole").mkdir()
    whole, half = opened(coded_package, tmp_path / "whole"), opened(in_fp16(coded_package), tmp_path)
    inputs = made.inputs()
    exact, rounded = (p.run(inputs, "fp16")["restored"] for p in (whole, half))
    error = np.sqrt(np.mean(np.square(exact - rounded))) / np.abs(exact).max()
    assert 0 < error < (1e-2 if level == "int8" else 1e-3)  # a code may be another one after 16 bits


def test_only_what_is_coded_changes(
    made: Made, weights: dict[str, NDArray[np.float32]], uses: dict[str, list[ConvRanges]], tmp_path: Path
) -> None:
    write_package(quantized_package(made.package, plan(weights, "fp32"), uses), tmp_path / "same.mlpackage")
    same = CoremlPackage.read(tmp_path / "same.mlpackage")
    ((_, before),), ((_, after),) = functions(made.package.spec), functions(same.spec)
    assert [op.type for op in before.operations] == [op.type for op in after.operations]
