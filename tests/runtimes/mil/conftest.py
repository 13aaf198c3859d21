"""Real Core ML packages for the tests, made with coremltools, whose warnings are dealt with here.

A module about ops has CASES: "op: what of it" -> (build, expected, *inputs). `build` gets the builder of coremltools
and the inputs of a program and gives the output; `expected` gets the inputs as tensors and gives what the output must
be.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pocketprior.runtimes.mil import MilProgram, read_package
from pocketprior.runtimes.mil.schema import Model

Build = Callable[..., Path]
TYPES = {np.dtype(np.float32): "fp32", np.dtype(np.float16): "fp16", np.dtype(np.int32): "int32"}
CLOSE = 2e-6  # of values that are about 1


@contextmanager
def quiet() -> Iterator[None]:
    """Without coremltools' warnings: of versions that it was not tested with, and of folders that it leaves behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """What the tests use of coremltools; importing it takes seconds."""
    if find_spec("coremltools") is None:
        pytest.skip("the extra coreml is not installed")
    logging.getLogger("coremltools").setLevel(logging.CRITICAL)
    with quiet():
        import coremltools as ct
        import coremltools.optimize.coreml as optimize
        from coremltools.converters.mil import Builder, mil
    gc.freeze()  # what was imported stays; `quiet` looks through the rest again and again
    return SimpleNamespace(ct=ct, builder=Builder, mil=mil, optimize=optimize, quiet=quiet)


@pytest.fixture(scope="session")
def build(tools: SimpleNamespace) -> Build:
    """build(path, inputs, body): save a package, its outputs what `body` gives for the builder and the inputs.

    inputs: name -> (shape, type). target: the oldest system that it is for. change: what to do to the model before it
    is saved. passes: whether the converter may rewrite the program; without, its ops are those of `body`.
    """
    mil, ct = tools.mil, tools.ct

    def write(
        path: Path,
        inputs: Mapping[str, tuple[tuple[int, ...], str]],
        body: Callable[..., Mapping[str, Any]],
        target: str = "iOS18",
        change: Callable[[Any], Any] = lambda model: model,
        passes: bool = False,
    ) -> Path:
        version = ct.target[target]
        given = {
            name: tools.builder.placeholder(shape=shape, dtype=mil.types.string_to_builtin(kind))
            for name, (shape, kind) in inputs.items()
        }
        program = mil.Program()
        with quiet():
            with mil.Function(given, opset_version=version) as function:
                outputs = body(tools.builder, *function.inputs.values())
                for name, output in outputs.items():
                    output.name = name
                function.set_outputs(list(outputs.values()))
            program.add_function("main", function)
            model = ct.convert(
                program,
                source="milinternal",
                convert_to="mlprogram",
                minimum_deployment_target=version,
                compute_precision=ct.precision.FLOAT32,
                pass_pipeline=ct.PassPipeline() if passes else ct.PassPipeline.EMPTY,
                skip_model_load=True,
            )
            change(model).save(str(path))
            del model
        return path

    return write


@pytest.fixture(scope="session")
def rewrite() -> Any:
    """rewrite(path, change): a package after `change` was called with its model and the block of its program."""

    def write(path: Path, change: Callable[[Any, Any], None]) -> Path:
        (file,) = path.rglob("*.mlmodel")
        model = Model.FromString(file.read_bytes())
        (block,) = model.mlProgram.functions["main"].block_specializations.values()
        change(model, block)
        file.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture(scope="module")
def evaluated(
    request: pytest.FixtureRequest, build: Build, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MilProgram, dict[str, np.ndarray]]:
    """One package with all CASES of a module, and what its outputs are."""
    cases = request.module.CASES
    arrays = {f"{case}, {i}": array for case, (_, _, *given) in cases.items() for i, array in enumerate(given)}
    names = {key: f"x{i}" for i, key in enumerate(arrays)}

    def body(mb: Any, *values: Any) -> dict[str, Any]:
        by_name = dict(zip(arrays, values, strict=True))
        return {
            f"y{number}": case_build(mb, *(by_name[f"{case}, {i}"] for i in range(len(given))))
            for number, (case, (case_build, _, *given)) in enumerate(cases.items())
        }

    inputs = {names[key]: (array.shape, TYPES[array.dtype]) for key, array in arrays.items()}
    target = getattr(request.module, "TARGET", "iOS18")
    package = read_package(build(tmp_path_factory.mktemp("ops") / "ops.mlpackage", inputs, body, target))
    program = package.function("main")
    outputs = program.run({names[key]: array for key, array in arrays.items()})
    return program, {case: outputs[f"y{number}"] for number, case in enumerate(cases)}


@pytest.fixture
def check_case(request: pytest.FixtureRequest, evaluated: tuple[MilProgram, dict[str, np.ndarray]]) -> Any:
    """check_case(case): the output is what the definition says, and the op of that name has computed it."""
    program, outputs = evaluated

    def check(case: str) -> None:
        _, expected, *given = request.module.CASES[case]
        wanted = np.asarray(expected(*map(torch.from_numpy, given)))
        assert outputs[case].shape == wanted.shape
        np.testing.assert_allclose(outputs[case], wanted, rtol=CLOSE, atol=CLOSE)
        assert np.ptp(wanted) > 0 or wanted.size == 1, "a result that is the same everywhere shows little"
        assert case.partition(":")[0] in {step.op for step in program.steps}

    return check
