"""Megapixels per second of whole restorations on one thread: our packs, networks of others and OpenCV in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from ...core.arguments import NamedPath
from ...core.arrays import Image
from ...core.errors import MissingExtraError, UsageError
from ...core.markdown import table
from ...core.pack.manifest import Manifest
from ...core.pack.store import default_pack
from ...core.restore.restorer import Restorer
from ...core.timing import interleaved
from ..options import CPU_RUNTIMES
from . import baseline
from .methods import DTPM, NLM, PREDICTOR, BenchMethod, Nlm, fast_nl_means

__all__ = ["Contestant", "SpeedTiming", "contestants", "made_photo", "measure_speed", "rates", "speed_table"]

LIBRARY_WINDOWS = Nlm(10, 7, 21)  # OpenCV's own sizes
TIMED_SIGMA = 25.0  # for a network that takes one: time does not depend on it


class Contestant(NamedTuple):
    """What is timed: its name, the precision of its files, and the runtime."""

    method: str
    precision: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.method}, {self.runtime} {self.precision}"


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


def made_photo(megapixels: float) -> Image:
    """A noisy gradient of 4 : 3, (H, W, 3) uint8: time does not depend on what a photo shows."""
    height = max(1, round((megapixels * 1e6 * 3 / 4) ** 0.5))
    width = max(1, round(height * 4 / 3))
    ramp = np.linspace(30, 225, width)[None, :, None]
    return np.clip(ramp + np.random.default_rng(0).normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


def _packs(first: Path | None, variants: Sequence[NamedPath]) -> dict[str, Path]:
    """Packs by name: `first`, None for the embedded one, and the variants; UsageError for one that names a runtime."""
    runtime = next((variant.value for variant in variants if variant.value), "")
    if runtime:
        raise UsageError(f"every pack is timed in all --runtimes; leave out runtime={runtime}")
    return {DTPM: first or default_pack(), **{variant.name: variant.path for variant in variants}}


def contestants(
    packs: Mapping[str, Path], networks: Sequence[NamedPath], runtimes: Sequence[str], arithmetic: str | None = None
) -> dict[Contestant, Callable[[Image], Image]]:
    """What is timed, on one thread each.

    Args:
        packs: By name: of each the forms of the restoration that it has, and its predictor.
        networks: Networks of others.
        runtimes: Each runs every pack and network; one that is not installed is left out if another remains.
        arithmetic: Of the packs, other than integers.
    """
    found: dict[Contestant, Callable[[Image], Image]] = {}
    for runtime in _installed(runtimes):
        for name, folder in packs.items():
            found |= _of_pack(name, folder, runtime, arithmetic)
        for given in networks:
            network = baseline.opened(given, runtime)
            sigma = TIMED_SIGMA if network.sigma else None
            found[Contestant(given.name, network.precision, runtime)] = partial(baseline.restored, network, sigma=sigma)
    return found | {Contestant(NLM, "", "OpenCV"): partial(fast_nl_means, settings=LIBRARY_WINDOWS)}


def _installed(runtimes: Sequence[str]) -> list[str]:
    there: list[str] = []
    for runtime in runtimes:
        try:
            import_module(runtime)
        except ModuleNotFoundError as error:
            if len(runtimes) == 1:
                raise MissingExtraError(runtime, runtime, f"the runtime '{runtime}'") from error
            continue
        there.append(runtime)
    return there


def _of_pack(
    name: str, folder: Path, runtime: str, arithmetic: str | None
) -> dict[Contestant, Callable[[Image], Image]]:
    manifest = Manifest.load(folder)
    graphs = manifest.graphs
    target = "openvino" if runtime == "openvino" and "openvino" in manifest.precision else "onnx"
    precision = manifest.precision[target]
    forms = [(form, graph) for form, graph in (("split", "denoise"), ("fused", "fused")) if graph in graphs]
    found: dict[Contestant, Callable[[Image], Image]] = {}
    for form, graph in forms:
        restorer = Restorer.from_pack(folder, runtime, form, threads=1, arithmetic=arithmetic)
        found[Contestant(f"{name}, {form}", precision[graph], runtime)] = restorer
        if "predict" in graphs and form == forms[0][0]:
            alone = PREDICTOR if name == DTPM else f"{name}, {PREDICTOR}"
            found[Contestant(alone, precision["predict"], runtime)] = partial(restorer, strength=0.0)
    return found


def measure_speed(
    pack: Path | None = None,
    variants: Sequence[NamedPath] = (),
    networks: Sequence[NamedPath] = (),
    runtimes: Sequence[str] = CPU_RUNTIMES,
    *,
    arithmetic: str | None = None,
    megapixels: float = 1.0,
    rounds: int = 5,
) -> list[SpeedTiming]:
    """Time restorations of a made-up photo of `megapixels`, every method once per round.

    Args:
        pack: Folder of a pack; None for the embedded one.
        variants: Further packs.
        networks: Networks of others, as ONNX files.
        runtimes: What runs each of them.
        arithmetic: Of the packs, other than integers; None for what each says.
        megapixels: Size of the photo.
        rounds: How often each method is timed.

    Raises:
        UsageError: A variant names a runtime, or a file is no such network.
        MissingExtraError: OpenCV, or the only runtime, is not installed.
    """
    methods = contestants(_packs(pack, variants), networks, runtimes, arithmetic)
    image = made_photo(megapixels)
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
