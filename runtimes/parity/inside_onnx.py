"""What every layer of an ONNX graph gives: a copy of the graph that has them all for outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...core.arrays import Array
from ...core.errors import GraphError, MissingExtraError
from .findings import Value

__all__ = ["MODULE", "exposed", "inside"]

MODULE = "pocketprior.module"  # metadata of a node: the part of the model that it was made from
FEWEST = 3  # severity of messages of ONNX Runtime that are shown: errors


def inside(path: Path, graph: str, inputs: Mapping[str, Array], arithmetic: str) -> dict[str, Value]:  # noqa: ARG001
    """All float32 arrays of the graph, by name, in the order of computation; ONNX Runtime computes in float32 alone.

    Raises MissingExtraError without onnx, GraphError for a graph that cannot be run.
    """
    import onnxruntime

    content, made = exposed(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FEWEST
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        arrays: list[Any] = list(session.run(list(made), dict(inputs)))
    except Exception as error:  # its exceptions have no class in common
        raise GraphError(f"{path}: ONNX Runtime could not run it ({str(error)[:200]})") from error
    return {name: Value(np.asarray(array), *made[name]) for name, array in zip(made, arrays, strict=True)}


def exposed(path: Path) -> tuple[bytes, dict[str, tuple[str, str, str]]]:
    """The graph with all its float32 arrays for outputs; of each the name and operator of its node, and its module."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "export", "looking into the layers of a graph") from error
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    outputs = {value.name for value in model.graph.output}
    made: dict[str, tuple[str, str, str]] = {}
    for node in model.graph.node:
        module = next((entry.value for entry in node.metadata_props if entry.key == MODULE), "")
        for name in node.output:
            if types.get(name) == onnx.TensorProto.FLOAT:
                made[name] = (node.name or name, node.op_type, module)
    shapes = {value.name: value for value in model.graph.value_info}
    model.graph.output.extend(shapes[name] for name in made if name not in outputs)
    return model.SerializeToString(), made
