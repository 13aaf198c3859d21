"""A plan as OpenVINO IR: integers where the plan has them, other weights as coded, float ones in 16 bits.

The scales of the integers are those of the ONNX graphs; or NNCF learns its own from the same calls, and corrects the
biases. Which layers compute in integers is the plan's word alone. The same plan gives the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from ...core.errors import MissingExtraError
from .layers import graph_levels, initializers, uses, weights_digest
from .onnx_graphs import emit
from .ranges import Range
from .samples import Feed

__all__ = ["write_ir"]

# What NNCF leaves in float: these cost quality. Sums would gain, but with its scales OpenVINO 2026.4 crashes on some.
ELEMENTWISE = ("Add", "AvgPool", "Concat", "Divide", "Gelu", "MatMul", "Multiply", "ReduceMean", "Subtract")


def write_ir(
    model: onnx.ModelProto,
    levels: Mapping[str, str],
    scales: Mapping[str, Range] | Sequence[Feed],
    path: Path,
    *,
    halves: bool = True,
) -> None:
    """Write `model` with its layers at `levels` (by the digest of their weights) to `path`, an .xml, and its .bin.

    scales: of int8, from what `ranges` gives for the graph, or by NNCF from these calls of it. halves: whether what is
    left in float has 16 bits in the file. Raises MissingExtraError without openvino, or without nncf where that is to
    find the scales of integers.
    """
    openvino = _openvino()
    if isinstance(scales, Mapping):
        coded, feeds = emit(model, levels, scales), ()
    else:
        floats = {digest: "fp32" if level == "int8" else level for digest, level in levels.items()}
        coded, feeds = emit(model, floats, {}), scales
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "graph.onnx"
        source.write_bytes(coded.SerializeToString(deterministic=True))
        graph = openvino.Core().read_model(source)
        if feeds and "int8" in graph_levels(model, levels).values():
            graph = _integers(graph, _integer_nodes(coded, levels), feeds)
        _name(graph)
        openvino.save_model(graph, path, compress_to_fp16=halves)


def _integer_nodes(floats: onnx.ModelProto, levels: Mapping[str, str]) -> set[str]:
    weights = initializers(floats)
    return {node.name for node in uses(floats) if levels[weights_digest(weights[node.input[1]])] == "int8"}


def _integers(graph: Any, nodes: set[str], feeds: Sequence[Feed]) -> Any:
    """Post-training quantization of these convolutions alone."""
    nncf = _nncf()
    convolutions = [op.get_friendly_name() for op in graph.get_ordered_ops() if "Convolution" in op.get_type_name()]
    ignored = sorted(name for name in convolutions if name.partition("/")[0] not in nodes)
    scope = nncf.IgnoredScope(names=ignored, types=list(ELEMENTWISE), validate=False)
    with contextlib.redirect_stdout(sys.stderr):  # it shows its progress; stdout is for results
        return nncf.quantize(
            graph,
            nncf.Dataset(list(feeds)),
            subset_size=len(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=scope,
        )


def _name(graph: Any) -> None:
    """OpenVINO numbers what has no name by a counter of the process: names follow from the order instead."""
    graph.set_friendly_name("graph")
    for number, op in enumerate(graph.get_ordered_ops()):
        if op.get_type_name() not in ("Parameter", "Result"):
            op.set_friendly_name(f"{op.get_type_name()}_{number}")


def _openvino() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino", "writing OpenVINO IR") from error
    return openvino


def _nncf() -> Any:
    # NNCF reports what it is used for over the network unless it believes to be in a test.
    os.environ["NNCF_CI"] = "1"
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise MissingExtraError("nncf", "quantize", "int8 for OpenVINO") from error
    nncf.set_log_level(40)
    return nncf
