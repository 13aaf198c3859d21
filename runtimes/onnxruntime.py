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
from .check import check_interface, first_line
from .options import DEFAULT_OPTIONS, RuntimeOptions

__all__ = ["TARGETS", "failures", "open", "open_session"]

TARGETS = ("onnx",)

_FATAL = 4  # severity of what is logged: errors are raised, so they need not be logged as well
_FAILURES = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")  # a tile's memory goes back, for decoders and encoders
_DTYPES = {"tensor(float)": "float32"}  # the types that a pack may use


def open(path: Path, name: str, spec: GraphSpec, options: RuntimeOptions = DEFAULT_OPTIONS) -> Graph:
    """Open the file `path` of the graph `name`, on the CPU and in float32, the only ones it has here."""
    _, device, arithmetic = DEFAULT_OPTIONS
    if (options.device, options.arithmetic) != (device, arithmetic):
        raise UsageError(
            f"the runtime 'onnxruntime' has only the device {device} and {arithmetic} arithmetic, got "
            f"{options.device} and {options.arithmetic}; leave them out, or choose the runtime 'openvino'"
        )
    runtime = _runtime()
    failed = failures()
    try:
        session = open_session(path, options.threads)
    except failed as error:
        raise PackError(
            f"ONNX Runtime {runtime.__version__} cannot open {path} ({first_line(error)}); "
            "copy the pack again, or export it again"
        ) from error
    check_interface(path, spec, _arrays(session.get_inputs()), _arrays(session.get_outputs()))
    run_options = runtime.RunOptions()
    run_options.log_severity_level = _FATAL
    run_options.add_run_config_entry(*_SHRINK)
    outputs = list(spec.outputs)

    def call(**inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        try:
            results = session.run(outputs, inputs, run_options)
        except failed as error:
            raise GraphError(f"graph '{name}': ONNX Runtime could not run it ({first_line(error)})") from error
        return dict(zip(outputs, results, strict=True))

    return call


def open_session(graph: Path | bytes, threads: int | None = None, *, basic: bool = False) -> Any:
    """A session of ONNX Runtime on the CPU, whose errors are raised but not logged; one of `failures()` if it fails.

    graph: An ONNX file, or its content. threads: For one call; None for ONNX Runtime's own choice. basic: Whether to
    leave out the optimizations that fuse nodes, so that every array between them is there.
    """
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    if basic:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    content = graph if isinstance(graph, bytes) else str(graph)
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its exceptions have no class in common."""
    state = _runtime().capi.onnxruntime_pybind11_state
    return (*(getattr(state, name) for name in _FAILURES), state.RuntimeException)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UsageError(
            "the runtime 'onnxruntime' needs the package onnxruntime, which pocketprior depends on but which is not "
            "installed; run: pip install onnxruntime"
        ) from error
    return onnxruntime


def _arrays(arrays: Sequence[Any]) -> dict[str, ArraySpec]:
    """The inputs or outputs of a session; a type that no pack may use keeps its name, such as "tensor(float16)"."""
    return {array.name: ArraySpec(str(_DTYPES.get(array.type, array.type)), tuple(array.shape)) for array in arrays}
