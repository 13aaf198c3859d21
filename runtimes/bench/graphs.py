"""Milliseconds of single graphs, of several packs in several runtimes in turn: what integers gain over floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UsageError
from ...core.pack.manifest import GraphSpec, Manifest
from ...core.timing import interleaved
from .. import open_graphs

__all__ = ["ARITHMETIC_OF", "GraphTiming", "Method", "inputs", "methods", "race", "table"]

ARITHMETIC_OF = {"onnxruntime": ("fp32",), "openvino": ("fp32", "bf16")}  # of each runtime that is timed


@dataclass(frozen=True)
class Method:
    """One graph of the pack in a folder, in one runtime. precision: of its file; arithmetic: of what is not integer."""

    graph: str
    pack: str
    precision: str
    runtime: str
    arithmetic: str


@dataclass(frozen=True)
class GraphTiming(Method):
    """CPU milliseconds of a call in one thread, over all rounds; how many times faster it is than the float graph of
    the same runtime: in float32, and in the best arithmetic.
    """

    median: float
    fastest: float
    slowest: float
    over_fp32: float
    over_best_float: float


def inputs(spec: GraphSpec, side: int) -> dict[str, NDArray[np.float32]]:
    """Arrays in [0, 1) of the shapes of a graph, free sizes being `side`: time does not depend on what they show."""
    rng = np.random.default_rng(0)
    shapes = {name: [side if isinstance(size, str) else size for size in a.shape] for name, a in spec.inputs.items()}
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


def methods(
    folders: Sequence[Path], runtimes: Sequence[str], side: int, only: Sequence[str] | None = None
) -> dict[Method, Callable[[], object]]:
    """A call of each graph (None: all) of each pack in each runtime and arithmetic, one thread.

    The first pack is the float one. 16 bits are left out where the processor has them not. Raises UsageError for
    packs that have not the same graphs.
    """
    manifests = [Manifest.load(folder) for folder in folders]
    names = list(only or manifests[0].graphs)
    found: dict[Method, Callable[[], object]] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        if not set(names) <= set(manifest.graphs):
            raise UsageError(
                f"the pack '{folder}' has the graphs {', '.join(manifest.graphs)}; of all packs "
                f"{', '.join(names)} are to be timed: give packs of one model, or other --graphs"
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
                    method = Method(name, str(folder), manifest.precision[target][name], runtime, arithmetic)
                    given = inputs(manifest.graphs[name], side)
                    found[method] = partial(opened[name], **given)
    return found


def race(calls: Mapping[Method, Callable[[], object]], rounds: int) -> list[GraphTiming]:
    """Time every call once per round, in turn; the first pack is the float one."""
    seconds = interleaved(calls, rounds)
    return [_timing(method, seconds) for method in calls]


def _timing(method: Method, seconds: Mapping[Method, Sequence[float]]) -> GraphTiming:
    first = next(iter(seconds)).pack
    floats = {
        other.arithmetic: median(values)
        for other, values in seconds.items()
        if (other.graph, other.runtime, other.pack) == (method.graph, method.runtime, first)
    }
    own = seconds[method]
    return GraphTiming(
        **method.__dict__,
        median=1e3 * median(own),
        fastest=1e3 * min(own),
        slowest=1e3 * max(own),
        over_fp32=floats["fp32"] / median(own),
        over_best_float=min(floats.values()) / median(own),
    )


def table(timings: Sequence[GraphTiming]) -> str:
    """A Markdown table, graph by graph."""
    columns = ("graph", "pack", "precision", "runtime", "floats in", "ms", "fastest to slowest")
    head = f"| {' | '.join(columns)} | over fp32 | over best float |\n| --- | --- | --- | --- | --- |{' ---: |' * 4}"
    lines = [
        f"| {t.graph} | {t.pack} | {t.precision} | {t.runtime} | {t.arithmetic} | {t.median:.2f} | "
        f"{t.fastest:.2f} to {t.slowest:.2f} | {t.over_fp32:.2f} x | {t.over_best_float:.2f} x |"
        for t in sorted(timings, key=lambda t: t.graph)
    ]
    return "\n".join([head, *lines])
