"""CPU time on one thread, of everything in turn: megapixels per second of restorations, milliseconds of graphs.

Restorations are those of our packs, networks of others and OpenCV. Graphs are those of several packs of one model, in
several runtimes: what quantization gains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.arguments import NamedPath
from ...core.arrays import Image
from ...core.errors import MissingExtraError, UsageError
from ...core.markdown import table
from ...core.pack.manifest import GraphSpec, Manifest
from ...core.pack.store import default_pack
from ...core.restore.restorer import Restorer
from ...core.timing import interleaved
from .. import open_graphs, target_for
from ..options import CPU_RUNTIMES
from . import baseline
from .methods import DTPM, NLM, BenchMethod, Nlm, fast_nl_means, predictor_of

__all__ = [
    "Contestant",
    "GraphRun",
    "GraphTiming",
    "SpeedTiming",
    "contestants",
    "graph_table",
    "inputs",
    "made_photo",
    "measure_graphs",
    "measure_speed",
    "rates",
    "speed_table",
]

LIBRARY_WINDOWS = Nlm(10, 7, 21)  # OpenCV's own sizes
TIMED_SIGMA = 25.0  # for a network that takes one: time does not depend on it

_Restore = Callable[[Image], Image]


class Contestant(NamedTuple):
    """What is timed: its name, the precision of its files, and the runtime."""

    method: str
    precision: str
    runtime: str


@dataclass(frozen=True)
class SpeedTiming:
    """CPU seconds per megapixel over all rounds, which on one thread of an idle core is what a user waits."""

    method: str
    precision: str
    runtime: str
    median: float
    fastest: float
    slowest: float

    @property
    def megapixels_per_second(self) -> float:
        """From the median."""
        return 1 / self.median


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


def made_photo(megapixels: float) -> Image:
    """A noisy gradient of 4 : 3, (H, W, 3) uint8: time does not depend on what a photo shows."""
    height = max(1, round((megapixels * 1e6 * 3 / 4) ** 0.5))
    width = max(1, round(height * 4 / 3))
    ramp = np.linspace(30, 225, width)[None, :, None]
    return np.clip(ramp + np.random.default_rng(0).normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


def contestants(
    packs: Mapping[str, Path], networks: Sequence[NamedPath], runtimes: Sequence[str], arithmetic: str | None = None
) -> dict[Contestant, _Restore]:
    """What is timed, on one thread each: of each pack the forms that it has and its predictor, networks, fastNlMeans.

    Each runtime runs every pack and network; one that is not installed is left out if another remains. arithmetic: Of
    the packs, other than integers.
    """
    found: dict[Contestant, _Restore] = {}
    for runtime in runtimes:
        try:
            import_module(runtime)
        except ModuleNotFoundError as error:
            if len(runtimes) == 1:
                raise MissingExtraError(runtime, runtime, f"the runtime '{runtime}'") from error
            continue
        for name, folder in packs.items():
            found |= _of_pack(name, folder, runtime, arithmetic)
        for given in networks:
            network = baseline.opened(given, runtime)
            sigma = TIMED_SIGMA if network.sigma else None
            found[Contestant(given.name, network.precision, runtime)] = partial(baseline.restored, network, sigma=sigma)
    return found | {Contestant(NLM, "", "OpenCV"): partial(fast_nl_means, settings=LIBRARY_WINDOWS)}


def _of_pack(name: str, folder: Path, runtime: str, arithmetic: str | None) -> dict[Contestant, _Restore]:
    manifest = Manifest.load(folder)
    precision = manifest.precision[target_for(manifest, runtime)]
    found: dict[Contestant, _Restore] = {}
    for form, graph in (("split", "denoise"), ("fused", "fused")):
        if graph not in manifest.graphs:
            continue
        restorer = Restorer.from_pack(folder, runtime, form, threads=1, arithmetic=arithmetic)
        found[Contestant(f"{name}, {form}", precision[graph], runtime)] = restorer
        if "predict" in manifest.graphs:
            alone = Contestant(predictor_of(name), precision["predict"], runtime)
            found.setdefault(alone, partial(restorer, strength=0.0))
    return found


def measure_speed(
    pack: Path | None = None,
    variants: Sequence[NamedPath] = (),
    networks: Sequence[NamedPath] = (),
    runtimes: Sequence[str] = tuple(CPU_RUNTIMES),
    *,
    arithmetic: str | None = None,
    megapixels: float = 1.0,
    rounds: int = 5,
) -> list[SpeedTiming]:
    """Time restorations of a made-up photo of `megapixels`, every method once per round, in each of the runtimes.

    pack: Folder of a pack; None for the embedded one. variants: Further packs. networks: Networks of others, as ONNX
    files. arithmetic: Of the packs, other than integers; None for what each says.

    Raises:
        UsageError: A variant names a runtime, or a file is no such network.
        MissingExtraError: OpenCV, or the only runtime, is not installed.
    """
    for variant in variants:
        if variant.value:
            raise UsageError(f"every pack is timed in all --runtimes; leave out runtime={variant.value}")
    packs = {DTPM: pack or default_pack(), **{variant.name: variant.path for variant in variants}}
    image = made_photo(megapixels)
    methods = contestants(packs, networks, runtimes, arithmetic)
    calls = {contestant: partial(method, image) for contestant, method in methods.items()}
    megapixels = image.shape[0] * image.shape[1] / 1e6
    return [
        SpeedTiming(*contestant, *(f(values) / megapixels for f in (median, min, max)))
        for contestant, values in interleaved(calls, rounds).items()
    ]


def rates(methods: Sequence[BenchMethod], megapixels: float = 0.25, rounds: int = 3) -> dict[str, float]:
    """Megapixels per second of each method by its name: CPU time of one thread."""
    image = made_photo(megapixels)
    seconds = interleaved({method.name: partial(method.restore, image) for method in methods}, rounds)
    return {name: image.shape[0] * image.shape[1] / 1e6 / median(values) for name, values in seconds.items()}


def speed_table(timings: Sequence[SpeedTiming]) -> str:
    """A Markdown table, fastest first."""
    rows = [["method", "precision", "runtime", "MPix/s", "CPU s per MPix", "fastest to slowest"]]
    for t in sorted(timings, key=lambda timing: timing.median):
        span = f"{t.fastest:.3f} to {t.slowest:.3f}"
        rows.append([t.method, t.precision, t.runtime, f"{t.megapixels_per_second:.2f}", f"{t.median:.3f}", span])
    return table(rows, left=3)


def inputs(spec: GraphSpec, side: int) -> dict[str, NDArray[np.float32]]:
    """Arrays in [0, 1) for a graph whose free sizes are `side`: time does not depend on what they show."""
    rng = np.random.default_rng(0)
    shapes = {name: [side if isinstance(size, str) else size for size in a.shape] for name, a in spec.inputs.items()}
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


def measure_graphs(
    folders: Sequence[Path],
    runtimes: Sequence[str] = tuple(CPU_RUNTIMES),
    *,
    side: int = 256,
    rounds: int = 9,
    only: Sequence[str] | None = None,
) -> list[GraphTiming]:
    """Time graphs of packs in every runtime and arithmetic, one thread, every call once per round.

    16 bits are left out on a processor without them. folders: Packs of one model; the first is the float one. side:
    Pixels of images whose size is free. only: Names of the graphs; None for all.

    Raises UsageError for packs that do not have the same graphs.
    """
    seconds = interleaved(_graph_calls(folders, runtimes, side, only), rounds)
    medians = {run: median(values) for run, values in seconds.items()}
    timings: list[GraphTiming] = []
    for run, values in seconds.items():
        key = run.graph, run.runtime, next(iter(seconds)).pack
        floats = {r.arithmetic: own for r, own in medians.items() if (r.graph, r.runtime, r.pack) == key}
        gains = floats["fp32"] / medians[run], min(floats.values()) / medians[run]
        figures: list[Any] = [*astuple(run), *(1e3 * f(values) for f in (median, min, max)), *gains]
        timings.append(GraphTiming(*figures))
    return timings


def _graph_calls(
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
            precision = manifest.precision[target_for(manifest, runtime)]
            for arithmetic in CPU_RUNTIMES[runtime]:
                try:
                    opened = open_graphs(manifest, folder, runtime, names=names, threads=1, arithmetic=arithmetic)
                except UsageError:
                    if arithmetic == "fp32":
                        raise
                    continue
                for name in names:
                    run = GraphRun(name, str(folder), precision[name], runtime, arithmetic)
                    found[run] = partial(opened[name], **inputs(manifest.graphs[name], side))
    return found


def graph_table(timings: Sequence[GraphTiming]) -> str:
    """A Markdown table, graph by graph."""
    head = "graph, pack, precision, runtime, floats in, ms, fastest to slowest, over fp32, over best float"
    rows = [
        (
            *(t.graph, t.pack, t.precision, t.runtime, t.arithmetic, f"{t.median:.2f}"),
            *(f"{t.fastest:.2f} to {t.slowest:.2f}", f"{t.over_fp32:.2f} x", f"{t.over_best_float:.2f} x"),
        )
        for t in sorted(timings, key=lambda t: t.graph)
    ]
    return table([head.split(", "), *rows], left=5)
