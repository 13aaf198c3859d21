"""ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GraphError, PackError, UsageError
from ..core.pack.manifest import ArraySpec, GraphSpec
from ..core.restore.restorer import Graph
from .check import check_interface
from .options import Options

__all__ = ["TARGETS", "open"]

TARGETS = ("onnx",)

_FATAL = 4  # log level: what goes wrong is raised, so that it need not be logged as well
_FAILURES = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")

DEFAULT = Options()

_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")  # a tile's memory goes back, for decoders and encoders


def open(path: Path, name: str, spec: GraphSpec, options: Options = DEFAULT) -> Graph:
    """Open the file `path` of the graph `name`, on the CPU and in float32, which is all it does there.

    Raises PackError for a file that is no graph, or not the one that `spec` describes, UsageError without
    onnxruntime or for another device or arithmetic; a call raises GraphError when it fails.
    """
    _check_options(options)
    runtime = _runtime()
    failures = _failures(runtime)
    try:
        session = runtime.InferenceSession(
            str(path), _session_options(runtime, options.threads), providers=["CPUExecutionProvider"]
        )
    except failures as error:
        raise PackError(
            f"ONNX Runtime {runtime.__version__} cannot open {path} ({_short(error)}); "
            "copy the pack again, or export it again"
        ) from error
    check_interface(f"{path}, inputs", _interface(session.get_inputs()), spec.inputs)
    check_interface(f"{path}, outputs", _interface(session.get_outputs()), spec.outputs)
    return _graph(name, session, list(spec.outputs), _run_options(runtime), failures)


def _check_options(options: Options) -> None:
    given = (options.device, options.arithmetic)
    if given != (DEFAULT.device, DEFAULT.arithmetic):
        raise UsageError(
            f"the runtime 'onnxruntime' was given the device {given[0]} and {given[1]} arithmetic; it has the device "
            f"{DEFAULT.device} and {DEFAULT.arithmetic}: leave them out, or choose the runtime 'openvino'"
        )


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


def _interface(arrays: Sequence[Any]) -> dict[str, ArraySpec]:
    return {array.name: ArraySpec(_dtype(array.type), tuple(array.shape)) for array in arrays}


def _dtype(onnx_type: str) -> str:
    """Of "tensor(float)", "tensor(float16)" ... the name that NumPy has for it, as far as a pack may use it."""
    return {"tensor(float)": "float32"}.get(onnx_type, onnx_type)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
