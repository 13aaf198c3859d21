"""ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GraphError, PackError, UsageError
from ..core.manifest import ArraySpec, GraphSpec
from ..core.restore import Graph

__all__ = ["TARGET", "open"]

TARGET = "onnx"

_FATAL = 4  # log level: what goes wrong is raised, so that it need not be logged as well
_FAILURES = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")

_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")  # a tile's memory goes back, for decoders and encoders


def open(path: Path, name: str, spec: GraphSpec, threads: int | None = None) -> Graph:
    """Open the file `path` of the graph `name`.

    threads: None for as many as ONNX Runtime finds good. Raises PackError for a file that is no graph, or not the one
    that `spec` describes, UsageError without onnxruntime; a call raises GraphError when it fails.
    """
    runtime = _runtime()
    failures = _failures(runtime)
    try:
        session = runtime.InferenceSession(
            str(path), _session_options(runtime, threads), providers=["CPUExecutionProvider"]
        )
    except failures as error:
        raise PackError(
            f"ONNX Runtime {runtime.__version__} cannot open {path} ({_short(error)}); "
            "copy the pack again, or export it again"
        ) from error
    _check_interface(f"{path}, inputs", session.get_inputs(), spec.inputs)
    _check_interface(f"{path}, outputs", session.get_outputs(), spec.outputs)
    return _graph(name, session, list(spec.outputs), _run_options(runtime), failures)


def _graph(name: str, session: Any, outputs: list[str], options: Any, failures: tuple[type[Exception], ...]) -> Graph:
    def call(**inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        try:
            results = session.run(outputs, inputs, options)
        except failures as error:
            raise GraphError(f"graph '{name}': ONNX Runtime could not run it ({_short(error)})") from error
        return dict(zip(outputs, results, strict=True))

    return call


def _runtime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UsageError(
            "the runtime 'onnxruntime' needs the package onnxruntime, which comes with pocketprior but is not "
            "installed; install it with: pip install onnxruntime"
        ) from error
    return onnxruntime


def _failures(runtime: Any) -> tuple[type[Exception], ...]:
    state = runtime.capi.onnxruntime_pybind11_state
    return (*(getattr(state, name) for name in _FAILURES), state.RuntimeException)


def _session_options(runtime: Any, threads: int | None) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    return options


def _run_options(runtime: Any) -> Any:
    options = runtime.RunOptions()
    options.log_severity_level = _FATAL
    options.add_run_config_entry(*_SHRINK)
    return options


def _check_interface(where: str, found: Sequence[Any], expected: Mapping[str, ArraySpec]) -> None:
    given = {array.name: ArraySpec(_dtype(array.type), tuple(array.shape)) for array in found}
    fits = set(given) == set(expected) and all(_fits(given[name], expected[name]) for name in expected)
    if not fits:
        raise PackError(f"{where}: {given} were found, the manifest says {dict(expected)}; export the pack again")


def _fits(given: ArraySpec, expected: ArraySpec) -> bool:
    """Where the manifest has a symbol the graph must be free; elsewhere it is free or has that number."""
    if given.dtype != expected.dtype or len(given.shape) != len(expected.shape):
        return False
    pairs = zip(given.shape, expected.shape, strict=True)
    return all(not isinstance(size, int) or size == wanted for size, wanted in pairs)


def _dtype(onnx_type: str) -> str:
    """Of "tensor(float)", "tensor(float16)" ... the name that NumPy has for it, as far as a pack may use it."""
    return {"tensor(float)": "float32"}.get(onnx_type, onnx_type)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
