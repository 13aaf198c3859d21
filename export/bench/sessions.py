"""Graphs of fixed shapes in the runtimes of this machine, on one thread, timed in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...core.errors import MissingExtraError
from ...core.timing import instruction_sets, interleaved, processor

__all__ = ["TIMED_CALLS", "GraphRun", "machine", "milliseconds", "open_onnxruntime", "open_openvino"]

TIMED_CALLS = 9

# The only output of a graph, from its inputs in order.
GraphRun = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float32]]


def open_onnxruntime(path: Path) -> GraphRun:
    """An ONNX file in ONNX Runtime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [array.name for array in session.get_inputs()]
    return lambda feed: np.asarray(session.run(None, dict(zip(names, feed, strict=True)))[0])


@cache
def _core() -> Any:
    """Kept until the process ends: a Core that is freed takes the signal stack with it (OpenVINO 2026.4)."""
    import openvino

    return openvino.Core()


def open_openvino(path: Path, arithmetic: str, shapes: Sequence[Sequence[int]] = ()) -> GraphRun:
    """An ONNX or IR file in OpenVINO, on one thread, with "f32" or "bf16" arithmetic of what is not integer.

    `shapes` are those of the inputs, in order, if they are free in the file: with free sizes OpenVINO is up to half as
    fast. Raises MissingExtraError without openvino.
    """
    try:
        core = _core()
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino", "measuring OpenVINO") from error
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": arithmetic, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    model = core.read_model(path)
    if shapes:
        model.reshape({given.any_name: list(shape) for given, shape in zip(model.inputs, shapes, strict=True)})
    compiled = core.compile_model(model, "CPU", properties)
    return lambda feed: compiled(list(feed))[0].copy()


def milliseconds(runs: Sequence[GraphRun], feed: Sequence[NDArray[np.float32]]) -> list[float]:
    """CPU milliseconds of a call of each, unaffected by other programs: the median of 9, in turn, after a warm-up."""
    taken = interleaved({i: partial(run, feed) for i, run in enumerate(runs)}, TIMED_CALLS)
    return [1e3 * median(times) for times in taken.values()]


def machine() -> str:
    """The processor, its instruction sets and the version of ONNX Runtime; not the name of the computer."""
    known = f" ({sets})" if (sets := instruction_sets()) else ""
    return f"{processor()}{known}; {os.cpu_count()} cores, ONNX Runtime {onnxruntime.__version__}"
