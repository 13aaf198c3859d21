"""A graph as an ONNX file: standard operators only, free or fixed sizes, equal bytes for equal weights."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch

from .graphs import Graph
from .neutral import normalized
from .onnx_file import write_graph

__all__ = ["OPSET", "convert"]

OPSET = 20  # the newest that ONNX Runtime and OpenVINO both take without trouble


def convert(
    graph: Graph, program: torch.export.ExportedProgram, path: Path, *, metadata: dict[str, str]
) -> tuple[Path, ...]:
    """Write `program`, what `traced` gives for `graph`, to `path`, with its free or fixed sizes.

    Returns what was written beside it and belongs to it: weights, where they are large.
    """
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns about its own deprecations and about optional packages.
        warnings.simplefilter("ignore")
        for chatty in ("torch.onnx", "onnxscript"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    return write_graph(normalized(exported.model_proto, metadata), path)
