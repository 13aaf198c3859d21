"""OpenVINO: its own IR files, or the ONNX files of a pack.

A graph is compiled for each tile size when that size first comes up: with sizes left open OpenVINO's plugins lose up
to half of their speed. The inference precision is always set explicitly: OpenVINO itself chooses 16 bits on a processor
that has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GraphError, MissingExtraError, PackError, UsageError
from ..core.pack.manifest import ArraySpec, GraphSpec
from ..core.pack.store import SHARED
from ..core.restore.restorer import Graph
from .check import check_interface
from .options import DEFAULT_OPTIONS, RuntimeOptions

__all__ = ["HINTS", "TARGETS", "last_line", "open", "read_model", "the_core"]

TARGETS = ("openvino", "onnx")

COMPILED_SIZES = 4  # tile sizes for which a graph is kept compiled
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
_DTYPES = {"f32": "float32"}  # the types that a pack may use


def open(path: Path, name: str, spec: GraphSpec, options: RuntimeOptions = DEFAULT_OPTIONS) -> Graph:
    """Open the file `path` of the graph `name`; UsageError where the device is not there, or lacks the arithmetic."""
    library, core = _library(), the_core()
    _check_options(core, options)
    try:
        model = read_model(path)
    except RuntimeError as error:
        raise PackError(
            f"OpenVINO {library.__version__} cannot open {path} ({last_line(error)}); "
            "copy the pack again, or export it again"
        ) from error
    check_interface(path, spec, _arrays(model.inputs, spec.inputs), _arrays(model.outputs, spec.outputs))
    properties = {"INFERENCE_PRECISION_HINT": HINTS[options.arithmetic], "PERFORMANCE_HINT": "LATENCY"}
    if options.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = str(options.threads)

    @lru_cache(COMPILED_SIZES)
    def compiled(shapes: tuple[tuple[int, ...], ...]) -> Any:
        fixed = model.clone()
        fixed.reshape(dict(zip(spec.inputs, map(list, shapes), strict=True)))
        return core.compile_model(fixed, options.device, properties)

    def call(**inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        try:
            run = compiled(tuple(inputs[array].shape for array in spec.inputs))
            results = run({array: np.ascontiguousarray(inputs[array]) for array in spec.inputs}, share_inputs=True)
        except RuntimeError as error:
            raise GraphError(f"graph '{name}': OpenVINO could not run it ({last_line(error)})") from error
        return {array: results[array].copy() for array in spec.outputs}

    return call


def read_model(path: Path) -> Any:
    """The model in an ONNX or IR file; an IR has weights of its own, or those that all IR files of the pack share.

    Raises MissingExtraError without openvino, RuntimeError for another file.
    """
    if path.suffix == ".onnx":
        return the_core().read_model(path)
    own = path.with_suffix(".bin")
    return the_core().read_model(path, own if own.exists() else path.with_name(SHARED["openvino"]))


def _library() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino", "the runtime 'openvino'") from error
    return openvino


@cache
def the_core() -> Any:
    """The one `openvino.Core` of this process, kept until its end; MissingExtraError without openvino.

    Each Core that computes installs a signal stack of its own and restores the previous one when it is freed, even if
    that one is gone (OpenVINO 2026.4): after two Cores the next signal, such as Ctrl-C, would crash the process.
    """
    return _library().Core()


def _check_options(core: Any, options: RuntimeOptions) -> None:
    if options.device not in core.available_devices:
        known = ", ".join(core.available_devices)
        raise UsageError(f"the device '{options.device}' was given; OpenVINO finds here: {known}")
    able = core.get_property(options.device, "OPTIMIZATION_CAPABILITIES")
    if _CAPABILITIES[options.arithmetic] not in able:
        raise UsageError(
            f"{options.arithmetic} arithmetic was asked for; the device '{options.device}' does not have it "
            f"({', '.join(able)}): choose fp32"
        )


def _arrays(ports: Sequence[Any], expected: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """The inputs or outputs of a model, a free size as "?"; a port may have several names, or none."""
    found: dict[str, ArraySpec] = {}
    for port in ports:
        name = next((name for name in expected if name in port.names), min(port.names, default="(no name)"))
        dtype = str(port.element_type.get_type_name())
        shape = tuple(size.get_length() if size.is_static else "?" for size in port.partial_shape)
        found[name] = ArraySpec(_DTYPES.get(dtype, dtype), shape)
    return found


def last_line(error: Exception) -> str:
    """What went wrong: the last line of the message; the lines before it point into OpenVINO's sources."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else type(error).__name__
