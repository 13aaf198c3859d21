"""Programs are run in turn, in two kinds of arithmetic, and what is not known in them is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.core.errors import GraphError, PackError, UnknownNameError
from pocketprior.runtimes.mil import MilProgram, read_package

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 8, 5, 6), np.float32)
WEIGHT = (RNG.standard_normal((8, 8, 3, 3)) / 8).astype(np.float16)
INPUTS = {"x": (X.shape, "fp32")}


def halves(mb: Any, x: Any) -> dict[str, Any]:
    """Numbers of 16 bits between two casts."""
    y = mb.conv(x=mb.cast(x=x, dtype="fp16", name="cast"), weight=WEIGHT, pad_type="same", name="conv")
    return {"y": mb.cast(x=mb.exp(x=y, name="exp"), dtype="fp32")}


@pytest.fixture(scope="module")
def original(build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("program") / "x.mlpackage", INPUTS, halves)


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A package of `halves` that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "x.mlpackage"))


@pytest.fixture
def program(original: Path) -> MilProgram:
    """The program of `halves`."""
    return read_package(original).function("main")


@pytest.fixture
def package(build: Any, tmp_path: Path) -> Any:
    """package(body): the program of a package made of it."""
    return lambda body, inputs=INPUTS: read_package(build(tmp_path / "x.mlpackage", inputs, body)).function("main")


def test_float32_arithmetic_rounds_nothing(program: MilProgram) -> None:
    exact = F.conv2d(torch.from_numpy(X), torch.from_numpy(WEIGHT.astype(np.float32)), padding=1).exp()
    np.testing.assert_allclose(program.run({"x": X})["y"], exact, rtol=1e-5)


def test_float16_arithmetic_rounds_what_each_op_gives(program: MilProgram) -> None:
    """But nothing within an op: the sums of a convolution are those of float32."""
    rounded = torch.from_numpy(X.astype(np.float16).astype(np.float32))
    inner = F.conv2d(rounded, torch.from_numpy(WEIGHT.astype(np.float32)), padding=1)
    expected = inner.numpy().astype(np.float16).astype(np.float32)
    seen: dict[str, np.ndarray] = {}
    found = program.run({"x": X}, "fp16", lambda _, name, array: seen.__setitem__(name, array))["y"]
    np.testing.assert_allclose(seen["conv"], expected, rtol=2**-10)  # a sum in another order may round elsewhere
    assert (seen["conv"] == expected).mean() > 0.99
    np.testing.assert_array_equal(found, np.exp(seen["conv"]).astype(np.float16).astype(np.float32))
    assert found.dtype == np.float32


def test_what_float16_cannot_hold_is_infinite(package: Any) -> None:
    def body(mb: Any, x: Any) -> dict[str, Any]:
        half = mb.cast(x=x, dtype="fp16")
        return {"y": mb.cast(x=mb.mul(x=half, y=np.float16(1000)), dtype="fp32")}

    x = np.array([1, 65, 66, -70, 1e5], np.float32)
    program = package(body, {"x": ((5,), "fp32")})
    np.testing.assert_array_equal(program.run({"x": x}, "fp16")["y"], [1000, 64992, np.inf, -np.inf, np.inf])
    np.testing.assert_array_equal(program.run({"x": x})["y"], x * 1000)


def test_inputs_and_outputs_of_16_bits(package: Any) -> None:
    program = package(lambda mb, x: {"y": mb.add(x=x, y=np.float16(0.1))}, {"x": ((3,), "fp16")})
    x = np.array([1, 2, 1000], np.float16)
    for arithmetic in ("fp32", "fp16"):
        found = program.run({"x": x}, arithmetic)["y"]
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, x + np.float16(0.1))


def test_all_that_is_computed_is_observed(program: MilProgram) -> None:
    seen: list[tuple[str, str, tuple[int, ...]]] = []
    program.run({"x": X}, observe=lambda op, name, array: seen.append((op, name, array.shape)))
    assert seen == [
        (op, name, X.shape) for op, name in (("cast", "cast"), ("conv", "conv"), ("exp", "exp"), ("cast", "y"))
    ]


def test_an_observer_may_keep_what_it_is_given(package: Any) -> None:
    """Nothing is written to afterwards, and the outputs are new arrays."""

    def body(mb: Any, x: Any) -> dict[str, Any]:
        same = mb.identity(x=x, name="same")
        return {"y": mb.relu(x=mb.reshape(x=same, shape=[1, 8, 30], name="flat")), "z": mb.identity(x=same)}

    given = X.copy()
    kept: dict[str, np.ndarray] = {}
    outputs = package(body).run({"x": given}, observe=lambda _, name, array: kept.__setitem__(name, array))
    np.testing.assert_array_equal(kept["flat"], X.reshape(1, 8, 30))
    np.testing.assert_array_equal(outputs["y"], np.maximum(kept["flat"], 0))
    for output in outputs.values():
        output[...] = 7
    np.testing.assert_array_equal(given, X)


def test_values_end_with_the_last_step_that_takes_them(package: Any) -> None:
    def body(mb: Any, x: Any) -> dict[str, Any]:
        first = mb.relu(x=x, name="first")
        mb.exp(x=x, name="unused")
        return {"y": mb.add(x=mb.sqrt(x=first, name="second"), y=first), "z": mb.square(x=x)}

    program = package(body)
    ends = {next(iter(step.outputs)): step.dead for step in program.steps}
    assert ends == {"first": (), "unused": ("unused",), "second": (), "y": ("first", "second"), "z": ("x",)}
    np.testing.assert_allclose(program.run({"x": X})["z"], X * X)


def test_an_output_that_is_a_constant(package: Any) -> None:
    def body(mb: Any, x: Any) -> dict[str, Any]:
        return {"y": mb.relu(x=x), "z": mb.const(val=np.array([1.5, 2], np.float32))}

    program = package(body)
    np.testing.assert_array_equal(program.run({"x": X})["z"], [1.5, 2])


def test_an_arithmetic_that_is_not_known(program: MilProgram) -> None:
    with pytest.raises(UnknownNameError, match=r"arithmetic of the MIL interpreter 'bf16'; choose one of: fp32, fp16"):
        program.run({"x": X}, "bf16")


@pytest.mark.parametrize("inputs", [{}, {"x": X, "y": X}, {"image": X}])
def test_other_inputs(inputs: dict[str, np.ndarray], program: MilProgram) -> None:
    with pytest.raises(GraphError, match=r"function 'main': expected the inputs x, got"):
        program.run(inputs)


def test_an_input_of_another_shape(program: MilProgram) -> None:
    with pytest.raises(GraphError, match=r"input 'x': expected float32 \[1, 8, 5, 6\], got float32 \[1, 8, 5, 5\]"):
        program.run({"x": X[..., 1:]})


def op_of(block: Any, kind: str) -> Any:
    return next(op for op in block.operations if op.type == kind)


def unknown_op(_: Any, block: Any) -> None:
    op_of(block, "exp").type = "restore"


def unknown_parameter(_: Any, block: Any) -> None:
    op_of(block, "exp").inputs["sharpness"].CopyFrom(op_of(block, "exp").inputs["x"])


def unknown_attribute(_: Any, block: Any) -> None:
    op_of(block, "exp").attributes["sharpness"].CopyFrom(op_of(block, "exp").attributes["name"])


def missing_parameter(_: Any, block: Any) -> None:
    del op_of(block, "conv").inputs["weight"]


def wrong_parameter(_: Any, block: Any) -> None:
    op_of(block, "conv").inputs["groups"].CopyFrom(op_of(block, "conv").inputs["pad_type"])


def two_values_for_one(_: Any, block: Any) -> None:
    op = op_of(block, "conv")
    op.inputs["groups"].arguments.add().CopyFrom(op.inputs["groups"].arguments[0])


def control_flow(_: Any, block: Any) -> None:
    op_of(block, "exp").blocks.add()


def value_from_nowhere(_: Any, block: Any) -> None:
    op_of(block, "exp").inputs["x"].arguments[0].name = "elsewhere"


def constant_without_value(_: Any, block: Any) -> None:
    del op_of(block, "const").attributes["val"]


def another_output(_: Any, block: Any) -> None:
    block.outputs[0] = "conv"


def output_from_nowhere(model: Any, block: Any) -> None:
    block.outputs[0] = model.description.output[0].name = "elsewhere"


def another_input(model: Any, _: Any) -> None:
    model.description.input[0].name = "image"


def another_version(model: Any, _: Any) -> None:
    model.mlProgram.functions["main"].opset = "CoreML99"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            unknown_op,
            r"x.mlpackage, function 'main', op 'restore' of 'exp': the MIL interpreter does not know the op",
        ),
        (unknown_parameter, "op 'exp' of 'exp': the parameter 'sharpness' is unknown here; the op takes: x"),
        (unknown_attribute, "op 'exp' of 'exp': the parameter 'sharpness' is unknown here"),
        (missing_parameter, "op 'conv' of 'conv': the parameter 'weight' is missing"),
        (wrong_parameter, "op 'conv' of 'conv': invalid literal for int.*export the package again"),
        (two_values_for_one, "op 'conv' of 'conv': the parameter 'groups' takes one value, got 2"),
        (control_flow, "op 'exp' of 'exp': the MIL interpreter has no control flow"),
        (value_from_nowhere, "op 'exp' of 'exp': the value 'elsewhere' is used before it is computed"),
        (constant_without_value, "op 'const' of '.*': the constant has no value"),
        (another_output, r"the outputs \['y'\] are described, \['conv'\] are there"),
        (output_from_nowhere, r"the outputs \['elsewhere'\] are described, \[\] are there"),
        (another_input, r"the inputs \['image'\] are described, \['x'\] are there"),
        (another_version, "there is no program for the ops of 'CoreML99'"),
    ],
)
def test_what_a_program_may_not_have(change: Any, message: str, saved: Path, rewrite: Any) -> None:
    rewrite(saved, change)
    with pytest.raises(PackError, match=message):
        read_package(saved).function("main")


def another_shape(_: Any, block: Any) -> None:
    op_of(block, "exp").outputs[0].type.tensorType.dimensions[1].constant.size = 9


def one_output_more(_: Any, block: Any) -> None:
    op = op_of(block, "exp")
    op.outputs.add().CopyFrom(op.outputs[0])
    op.outputs[1].name = "more"


def weights_of_another_size(_: Any, block: Any) -> None:
    conv = op_of(block, "conv")
    name = conv.inputs["groups"].arguments[0].name
    groups = next(op for op in block.operations if op.outputs[0].name == name)
    groups.attributes["val"].immediateValue.tensor.ints.values[0] = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_shape, r"op 'exp' of 'exp': the program declares float16 \[1, 9, 5, 6\], got \(1, 8, 5, 6\)"),
        (one_output_more, r"op 'exp' of 'exp': the program declares float16 .*, float16 .*, got \(1, 8, 5, 6\)"),
        (weights_of_another_size, r"op 'conv' of 'conv': 8 channels do not fit weights \[8, 8, 3, 3\] in 3 groups"),
    ],
)
def test_what_an_op_cannot_do(change: Any, message: str, saved: Path, rewrite: Any) -> None:
    program = read_package(rewrite(saved, change)).function("main")
    with pytest.raises(GraphError, match=message):
        program.run({"x": X})
