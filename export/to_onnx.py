"""A graph as an ONNX file: standard operators only, any size that is a multiple, equal bytes for equal weights."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch

from .graphs import Graph

__all__ = ["OPSET", "convert", "normalized"]

OPSET = 20  # the newest that ONNX Runtime and OpenVINO both take without trouble
EXAMPLE = (32, 48)  # multiples of the sampling grid, different so that height and width cannot be confused


def convert(graph: Graph, path: Path, *, multiple: int, metadata: dict[str, str]) -> None:
    """Trace `graph` once and write it to `path`; heights and widths are free multiples of `multiple`."""
    units = [torch.export.Dim(f"{symbol}_units", min=1, max=2**16) for symbol in ("h", "w")]
    sizes = {symbol: multiple * unit for symbol, unit in zip(("h", "w"), units, strict=True)}
    shapes = {
        name: {axis: sizes[s] for axis, s in enumerate(spec.shape) if isinstance(s, str)} or None
        for name, spec in graph.inputs.items()
    }
    example = graph.example(multiple * EXAMPLE[0], multiple * EXAMPLE[1])
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns about its own deprecations and about optional packages.
        warnings.simplefilter("ignore")
        for chatty in ("torch.onnx", "onnxscript"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph.module,
            tuple(example.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=tuple(shapes.values()) if any(shapes.values()) else None,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = normalized(program.model_proto, metadata)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def normalized(model: onnx.ModelProto, metadata: dict[str, str]) -> onnx.ModelProto:
    """Drop what differs between two runs or tells of the machine (traces, paths, value names); add `metadata`."""
    graph = model.graph
    graph.name = "graph"
    graph.doc_string = ""
    del model.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]
    kept = {v.name for v in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}

    def rename(name: str) -> str:
        if not name or name in kept:
            return name
        # ONNX Runtime's quantizer appends digits to names: the last character must not be one.
        return renamed.setdefault(name, f"v{len(renamed)}_")

    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for index, node in enumerate(graph.node):
        node.name = f"n{index}_{node.op_type}"
        node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    model.producer_name, model.producer_version = "pocketprior", ""
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    return model
