"""Where the time of a graph goes: its operators in ONNX Runtime, measured by ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from ...core.errors import UsageError
from ...core.markdown import table
from ...core.pack.manifest import Manifest
from .speed import inputs

__all__ = ["OperatorTime", "operator_table", "operator_times"]


class OperatorTime(NamedTuple):
    """All nodes of one operator in a graph, as ONNX Runtime runs it after its own fusions."""

    operator: str
    nodes: int
    milliseconds: float  # of one call, in one thread: the sum over nodes of each node's median
    share: float  # of the time of all operators
    macs: int  # multiply-adds of a call, those of padded channels too; 0 for operators other than convolutions


def operator_times(folder: Path, graph: str, *, side: int, rounds: int) -> list[OperatorTime]:
    """Profile a graph of a pack in float32 in one thread, the slowest operator first.

    side: Pixels of images whose size is free. rounds: Profiled calls, after one that warms up. Raises UsageError for a
    pack without this graph as an ONNX file in float32.
    """
    graphs = Manifest.load(folder).graphs
    files = graphs[graph].files.get("onnx", {}) if graph in graphs else {}
    if "fp32" not in files:
        raise UsageError(
            f"the pack '{folder}' has no graph '{graph}' for ONNX Runtime in fp32; give a float pack that does"
        )
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as temporary:
        options.profile_file_prefix = str(Path(temporary) / "profile")
        path = str(folder / files["fp32"].file)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        arrays = inputs(graphs[graph], side)
        for _ in range(rounds + 1):
            session.run(None, arrays)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _summed(event for event in events if event["name"].endswith("_kernel_time"))


def _summed(events: Iterable[Mapping[str, Any]]) -> list[OperatorTime]:
    """The times per operator from the profiler's events, one per node and call; the first call is left out."""
    nodes: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        nodes[event["name"]].append(event)
    operators: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for calls in nodes.values():
        arguments = calls[0]["args"]
        milliseconds = median(call["dur"] for call in calls[1:]) / 1e3
        operators[arguments["op_name"]].append((milliseconds, _macs(arguments)))
    total = sum(milliseconds for found in operators.values() for milliseconds, _ in found)
    times = [
        OperatorTime(name, len(found), spent := sum(ms for ms, _ in found), spent / total, sum(m for _, m in found))
        for name, found in operators.items()
    ]
    return sorted(times, key=lambda time: -time.milliseconds)


def _macs(arguments: Mapping[str, Any]) -> int:
    """Multiply-adds of a call of a node: every output of a convolution sums over one kernel."""
    if arguments["op_name"] != "Conv":
        return 0
    (kernel,), (output,) = arguments["input_type_shape"][1].values(), arguments["output_type_shape"][0].values()
    return math.prod(output) * math.prod(kernel[1:])


def operator_table(times: Sequence[OperatorTime]) -> str:
    """A Markdown table with a last row for all operators."""
    total = OperatorTime(
        "all", sum(t.nodes for t in times), sum(t.milliseconds for t in times), 1.0, sum(t.macs for t in times)
    )
    rows = [("operator", "nodes", "ms", "share", "GMAC/s")]
    for name, nodes, milliseconds, share, macs in (*times, total):
        rate = f"{macs / milliseconds / 1e6:.0f}" if macs else ""
        rows.append((name, str(nodes), f"{milliseconds:.2f}", f"{share:.1%}", rate))
    return table(rows, left=1)
