"""The arrays inside a graph, in each runtime: what layers are compared by.

A runtime returns only the outputs of a graph, so ONNX Runtime and OpenVINO run a copy of it in which every array is an
output; Core ML's programs are run by our own interpreter, because Core ML shows nothing of its inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...core.arrays import Array
from ...core.errors import GraphError, MissingExtraError
from ..check import first_line
from ..coreml import as_8_bits
from ..mil import read_package
from ..onnxruntime import failures, open_session
from ..openvino import HINTS, last_line, the_core, weights_of
from .findings import LayerValue

__all__ = ["INSIDE", "exposed", "inside_coreml", "inside_onnxruntime", "inside_openvino"]

MODULE_KEY = "pocketprior.module"  # metadata of an ONNX node: the part of the model that it comes from

Values = dict[str, LayerValue]
_Made = dict[str, tuple[str, str, str]]  # array -> name and operator of its node, and its module


def inside_onnxruntime(path: Path, graph: str, inputs: Mapping[str, Array], arithmetic: str) -> Values:  # noqa: ARG001
    """All float32 arrays of an ONNX file, by name, in the order of computation; always in float32.

    Raises:
        MissingExtraError: onnx is not installed.
        GraphError: The graph cannot be run.
    """
    content, made = exposed(path)
    try:
        arrays = open_session(content, basic=True).run(list(made), dict(inputs))
    except failures() as error:
        raise GraphError(f"{path}: ONNX Runtime could not run it ({first_line(error)})") from error
    return {name: LayerValue(np.asarray(array), *made[name]) for name, array in zip(made, arrays, strict=True)}


def exposed(path: Path) -> tuple[bytes, _Made]:
    """An ONNX graph with all its float32 arrays as outputs, and where each comes from."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "export", "looking into the layers of a graph") from error
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    outputs = {value.name for value in model.graph.output}
    made: _Made = {}
    for node in model.graph.node:
        module = next((entry.value for entry in node.metadata_props if entry.key == MODULE_KEY), "")
        for name in node.output:
            if types.get(name) == onnx.TensorProto.FLOAT:
                made[name] = (node.name or name, node.op_type, module)
    shapes = {value.name: value for value in model.graph.value_info}
    model.graph.output.extend(shapes[name] for name in made if name not in outputs)
    return model.SerializeToString(), made


def inside_openvino(path: Path, graph: str, inputs: Mapping[str, Array], arithmetic: str) -> Values:  # noqa: ARG001
    """All float arrays of an ONNX or IR file, by name (IR keeps those of ONNX), in the order of computation.

    Raises:
        MissingExtraError: openvino is not installed, or onnx for an ONNX file.
        GraphError: The graph cannot be run.
    """
    core = the_core()
    try:
        if path.suffix == ".onnx":
            content, made = exposed(path)
            model = core.read_model(content)
        else:
            model = core.read_model(path, weights_of(path))
            made = _opened(model)
        model.reshape({name: list(array.shape) for name, array in inputs.items()})
        run = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[arithmetic]})
        results = run({name: np.ascontiguousarray(array) for name, array in inputs.items()})
    except RuntimeError as error:
        raise GraphError(f"{path}: OpenVINO could not run it ({last_line(error)})") from error
    return {name: LayerValue(np.array(results[name]), *made[name]) for name in made}


def _opened(model: Any) -> _Made:
    """Make outputs of all float arrays that have a name."""
    made: _Made = {}
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind in ("Parameter", "Constant", "Result"):
            continue
        for port in operation.outputs():
            if port.names and port.element_type.is_real():
                made[min(port.names)] = (operation.get_friendly_name(), kind, "")
    ready = {name for port in model.outputs for name in port.names}
    model.add_outputs([name for name in made if name not in ready])
    return made


def inside_coreml(path: Path, graph: str, inputs: Mapping[str, Array], arithmetic: str) -> Values:
    """All float arrays of the program of a graph, by name, in the order of computation, in the MIL interpreter."""
    found: Values = {}

    def observe(op: str, output: str, array: Array) -> None:
        if array.dtype.kind == "f":
            found[output] = LayerValue(array, output, op, "")

    program = read_package(path.parent).function(graph)
    program.run(as_8_bits(inputs, program.inputs), arithmetic, observe)
    return found


INSIDE: dict[str, Callable[[Path, str, Mapping[str, Array], str], Values]] = {
    "onnxruntime": inside_onnxruntime,
    "openvino": inside_openvino,
    "coreml": inside_coreml,
}
