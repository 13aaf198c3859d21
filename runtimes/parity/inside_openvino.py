"""What every layer of a graph gives in OpenVINO: of an ONNX file, or of IR, whose arrays keep their ONNX names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...core.arrays import Array
from ...core.errors import GraphError
from ..openvino import HINTS, the_core, weights_of
from .findings import Value
from .inside_onnx import exposed

__all__ = ["inside"]


def inside(path: Path, graph: str, inputs: Mapping[str, Array], arithmetic: str) -> dict[str, Value]:  # noqa: ARG001
    """All float arrays of the graph, by name, in the order of computation.

    Raises MissingExtraError without openvino, or for an ONNX file without onnx, GraphError for a graph that cannot be
    run.
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
        raise GraphError(f"{path}: OpenVINO could not run it ({str(error)[-200:].strip()})") from error
    return {name: Value(np.array(results[name]), *made[name]) for name in made}


def _opened(model: Any) -> dict[str, tuple[str, str, str]]:
    """Make outputs of all float arrays that have a name; of each the name and type of its operation."""
    made: dict[str, tuple[str, str, str]] = {}
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
