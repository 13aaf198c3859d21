"""A graph as an ONNX file: standard operators only, any size that is a multiple, equal bytes for equal weights."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch

from .graphs import Graph
from .neutral import normalized

__all__ = ["OPSET", "convert"]

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
