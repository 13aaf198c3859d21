"""The target "openvino": IR files with integers where a plan has them, other weights quantized, the rest in 16 bits.

The scales of the integers are those of the ONNX graphs, or NNCF finds its own from the same calls and corrects the
biases; which layers compute in integers is always given. The same precisions give the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx

from ...core.errors import MissingExtraError
from ...core.pack.store import packed_file
from . import WEIGHT_PRECISIONS, Offer, Target, Written
from .calibration import FloatPack, GraphInputs, Range
from .onnx import node_lists, quantized_graph
from .onnx_file import ConstantStore, join_files
from .weights import graph_precisions, uses

__all__ = ["TARGET", "openvino_files", "shared_ir", "write_ir"]

# What NNCF leaves in float: these cost quality. Sums would gain, but with its scales OpenVINO 2026.4 crashes on some.
_ELEMENTWISE = ("Add", "AvgPool", "Concat", "Divide", "Gelu", "MatMul", "Multiply", "ReduceMean", "Subtract")
_NNCF_CALLS = 40  # of a graph, from which NNCF finds scales: of a denoiser ten photos in four steps


def openvino_files(
    pack: FloatPack, precisions: Mapping[str, str], folder: Path, label: str, nncf: bool = False
) -> dict[str, Written]:
    """Write the graphs as IR; as `Target.emit`. Float weights are stored in float16, except under the label "fp32".

    `nncf`: whether NNCF finds the scales of integers, instead of those of the ONNX graphs. Errors as `write_ir`.
    """
    written: dict[str, Written] = {}
    for name, model in pack.models.items():
        path = folder / f"{name}.{label}.xml"
        scales = pack.feeds[name][:_NNCF_CALLS] if nncf else pack.values[name]
        write_ir(model, pack.by_digest(precisions), scales, path, fp16=label != "fp32")
        files = (packed_file(folder, path.with_suffix(suffix).name) for suffix in (".xml", ".bin"))
        written[name] = Written(label, next(files), tuple(files))
    return written


def write_ir(
    model: onnx.ModelProto,
    precisions: Mapping[str, str],
    scales: Mapping[str, Range] | Sequence[GraphInputs],
    path: Path,
    *,
    fp16: bool = True,
) -> None:
    """Write a float ONNX graph as IR, the .xml `path` and a .bin next to it; `fp16`: float weights in 16 bits.

    `precisions` are by the digest of the weights. `scales` are those of int8: what `ranges` returns for the graph, or
    calls of the graph from which NNCF finds them. Raises MissingExtraError if openvino is not installed, or nncf where
    it is to find the scales.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino", "writing OpenVINO IR") from error
    if isinstance(scales, Mapping):
        quantized, feeds = quantized_graph(model, precisions, scales), ()
    else:
        floats = {digest: "fp32" if precision == "int8" else precision for digest, precision in precisions.items()}
        quantized, feeds = quantized_graph(model, floats, {}), scales
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "graph.onnx"
        source.write_bytes(quantized.SerializeToString(deterministic=True))
        graph = openvino.Core().read_model(source)
        integers = graph_precisions(quantized, precisions) if feeds else {}
        nodes = {node.name for node in uses(quantized) if integers.get(node.input[1]) == "int8"}
        if nodes:
            graph = _with_integers(graph, nodes, feeds)
        graph.set_friendly_name("graph")
        # OpenVINO numbers unnamed operations by a counter of the process: name them by their order.
        for number, op in enumerate(graph.get_ordered_ops()):
            if op.get_type_name() not in ("Parameter", "Result"):
                op.set_friendly_name(f"{op.get_type_name()}_{number}")
        openvino.save_model(graph, path, compress_to_fp16=fp16)


def _with_integers(graph: Any, nodes: set[str], feeds: Sequence[GraphInputs]) -> Any:
    """Post-training quantization by NNCF of these convolutions only."""
    # NNCF reports its use over the network unless it believes to be in a test.
    os.environ["NNCF_CI"] = "1"
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise MissingExtraError("nncf", "quantize", "int8 for OpenVINO") from error
    nncf.set_log_level(40)
    convolutions = [op.get_friendly_name() for op in graph.get_ordered_ops() if "Convolution" in op.get_type_name()]
    ignored = sorted(name for name in convolutions if name.partition("/")[0] not in nodes)
    scope = nncf.IgnoredScope(names=ignored, types=list(_ELEMENTWISE), validate=False)
    with contextlib.redirect_stdout(sys.stderr):  # it shows its progress; stdout is for results
        return nncf.quantize(
            graph,
            nncf.Dataset(list(feeds)),
            subset_size=len(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=scope,
        )


def shared_ir(xml: str, weights: bytes, store: ConstantStore) -> ElementTree.Element:
    """The IR with its constants in `store`, without redundant types.

    An input of an operation has the type and size of the output that it is connected to; OpenVINO infers both.
    """
    root = ElementTree.fromstring(xml)
    for data in root.iterfind("layers/layer[@type='Const']/data"):
        start, size = int(data.attrib["offset"]), int(data.attrib["size"])
        data.attrib["offset"] = str(store.offset(weights[start : start + size]))
    for port in root.iterfind("layers/layer/input/port"):
        port.attrib.pop("precision", None)
        for size in list(port):
            port.remove(size)
    for element in root.iter():
        element.text = (element.text or "").strip()  # what is left of indentation is sizes
        element.tail = None
    return root


def _split(path: Path, store: ConstantStore) -> tuple[bytes, bytes]:
    root = shared_ir(path.read_text(encoding="utf-8"), path.with_suffix(".bin").read_bytes(), store)
    content = ElementTree.tostring(root, xml_declaration=True)
    for facts in root.findall("rt_info"):  # those of the task
        root.remove(facts)
    return content, ElementTree.tostring(root)


def _offers(label: str, precisions: Mapping[str, str]) -> dict[str, Offer]:
    """The precisions as they are with float32 or bf16 around integers, NNCF's scales, and no integers at all."""
    offers = {name: Offer(precisions, openvino_files) for name in (label, f"{label}+bf16")}
    if "int8" in precisions.values():
        nncf = Offer(precisions, partial(openvino_files, nncf=True))
        without = {layer: "w8" if precision == "int8" else precision for layer, precision in precisions.items()}
        offers |= {f"{label}-nncf": nncf, f"{label}-nncf+bf16": nncf, "w8+bf16": Offer(without, openvino_files)}
    return offers


def _plan(pack: FloatPack, precisions: Mapping[str, str]) -> tuple[str, dict[str, list[str]]]:
    """For NNCF: graph -> names of the float graph's nodes that stay out of integer arithmetic."""
    lists = node_lists(pack, precisions).items()
    return "nncf", {graph: sorted(n for p, names in own.items() if p != "int8" for n in names) for graph, own in lists}


TARGET = Target(
    name="openvino",
    runtime="openvino",
    precisions=(*WEIGHT_PRECISIONS, "fp16+bf16", "w8+bf16", "w4+bf16", "int8+bf16"),
    emit=openvino_files,
    join=partial(join_files, "openvino", _split),
    offers=_offers,
    baselines=("fp32", "bf16"),
    plan=_plan,
)
