"""Milliseconds of single graphs, of several packs in several runtimes in turn: what quantization gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UsageError
from ...core.markdown import table
from ...core.pack.manifest import GraphSpec, Manifest
from ...core.timing import interleaved
from .. import open_graphs
from ..options import CPU_RUNTIMES

__all__ = ["GraphRun", "GraphTiming", "graph_table", "inputs", "measure_graphs"]

ARITHMETIC_OF = {"onnxruntime": ("fp32",), "openvino": ("fp32", "bf16")}  # what each runtime is timed in


@dataclass(frozen=True)
class GraphRun:
    """One graph of a pack in one runtime."""

    graph: str
    pack: str  # its folder
    precision: str  # of its file
    runtime: str
    arithmetic: str  # of what is not integer


@dataclass(frozen=True)
class GraphTiming(GraphRun):
    """CPU milliseconds of a call in one thread, over all rounds."""

    median: float
    fastest: float
    slowest: float
    over_fp32: float  # how many times faster than the float graph of the same runtime in float32
    over_best_float: float  # and in its best arithmetic


def inputs(spec: GraphSpec, side: int) -> dict[str, NDArray[np.float32]]:
    """Arrays in [0, 1) for a graph whose free sizes are `side`: time does not depend on what they show."""
    rng = np.random.default_rng(0)
    shapes = {name: [side if isinstance(size, str) else size for size in a.shape] for name, a in spec.inputs.items()}
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


def measure_graphs(
    folders: Sequence[Path],
    runtimes: Sequence[str] = CPU_RUNTIMES,
    *,
    side: int = 256,
    rounds: int = 9,
    only: Sequence[str] | None = None,
) -> list[GraphTiming]:
    """Time graphs of packs in every runtime and arithmetic, one thread, every call once per round.

    Args:
        folders: Packs of one model; the first is the float one.
        runtimes: What runs them. 16 bits are left out on a processor without them.
        side: Pixels of images whose size is free.
        rounds: How often each call is timed.
        only: Names of the graphs; None for all.

    Raises:
        UsageError: The packs do not have the same graphs.
    """
    seconds = interleaved(_calls(folders, runtimes, side, only), rounds)
    return [_timing(run, seconds) for run in seconds]


def _calls(
    folders: Sequence[Path], runtimes: Sequence[str], side: int, only: Sequence[str] | None
) -> dict[GraphRun, Callable[[], object]]:
    manifests = [Manifest.load(folder) for folder in folders]
    names = list(only or manifests[0].graphs)
    found: dict[GraphRun, Callable[[], object]] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        if not set(names) <= set(manifest.graphs):
            raise UsageError(
                f"the pack '{folder}' has the graphs {', '.join(manifest.graphs)}, not all of {', '.join(names)}; give "
                "packs of one model, or other --graphs"
            )
        for runtime in runtimes:
            target = "openvino" if runtime == "openvino" and "openvino" in manifest.precision else "onnx"
            for arithmetic in ARITHMETIC_OF[runtime]:
                try:
                    opened = open_graphs(manifest, folder, runtime, names=names, threads=1, arithmetic=arithmetic)
                except UsageError:
                    if arithmetic == "fp32":
                        raise
                    continue
                for name in names:
                    run = GraphRun(name, str(folder), manifest.precision[target][name], runtime, arithmetic)
                    found[run] = partial(opened[name], **inputs(manifest.graphs[name], side))
    return found


def _timing(run: GraphRun, seconds: Mapping[GraphRun, Sequence[float]]) -> GraphTiming:
    first = next(iter(seconds)).pack
    floats = {
        other.arithmetic: median(values)
        for other, values in seconds.items()
        if (other.graph, other.runtime, other.pack) == (run.graph, run.runtime, first)
    }
    own = seconds[run]
    return GraphTiming(
        **run.__dict__,
        median=1e3 * median(own),
        fastest=1e3 * min(own),
        slowest=1e3 * max(own),
        over_fp32=floats["fp32"] / median(own),
        over_best_float=min(floats.values()) / median(own),
    )


def graph_table(timings: Sequence[GraphTiming]) -> str:
    """A Markdown table, graph by graph."""
    rows = [
        (
            "graph",
            "pack",
            "precision",
            "runtime",
            "floats in",
            "ms",
            "fastest to slowest",
            "over fp32",
            "over best float",
        )
    ]
    rows += [
        (
            *(t.graph, t.pack, t.precision, t.runtime, t.arithmetic, f"{t.median:.2f}"),
            *(f"{t.fastest:.2f} to {t.slowest:.2f}", f"{t.over_fp32:.2f} x", f"{t.over_best_float:.2f} x"),
        )
        for t in sorted(timings, key=lambda t: t.graph)
    ]
    return table(rows, left=5)
