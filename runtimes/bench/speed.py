"""Megapixels per second on one thread: ours, networks and OpenCV in turn, so that a busy moment hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from ...core.arrays import Image
from ...core.errors import MissingExtraError, UsageError
from ...core.markdown import table
from ...core.pack.manifest import Manifest
from ...core.pack.store import default_pack
from ...core.restore.restorer import Restorer
from ...core.timing import interleaved
from . import baseline
from .classical import Nlm, fast_nl_means
from .methods import DTPM, NLM, PREDICTOR
from .named import Named

__all__ = ["RUNTIMES", "Contestant", "Timing", "contestants", "made_photo", "packs", "speed_table", "timed"]

RUNTIMES = ("onnxruntime", "openvino")
LIBRARY_WINDOWS = Nlm(10, 7, 21)  # OpenCV's own sizes
SIGMA = 25.0  # for a network that takes one: time does not depend on it


class Contestant(NamedTuple):
    """What is timed: its name, the precision of its files, and the runtime."""

    method: str
    precision: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.method}, {self.runtime} {self.precision}"


@dataclass(frozen=True)
class Timing:
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


def packs(first: Path | None, variants: Sequence[Named]) -> dict[str, Path]:
    """Packs by name: `first`, None for the embedded one, and the variants.

    Raises UsageError for a variant that names a runtime: every pack is timed in all of them.
    """
    told = next((variant.value for variant in variants if variant.value), "")
    if told:
        raise UsageError(f"runtime={told} was given; every pack is timed in all --runtimes: leave it out")
    return {DTPM: first or default_pack(), **{variant.name: variant.path for variant in variants}}


def contestants(
    packs: Mapping[str, Path], networks: Sequence[Named], runtimes: Sequence[str], arithmetic: str | None = None
) -> dict[Contestant, Callable[[Image], Image]]:
    """Every pack and every network in every runtime, and fastNlMeans; one thread each.

    packs: by name; of each the forms of the restoration that it has, and its predictor alone. arithmetic: of the packs,
    beside integers. OpenVINO is left out where it is not installed and another runtime remains.
    """
    found: dict[Contestant, Callable[[Image], Image]] = {}
    for runtime in _installed(runtimes):
        for name, folder in packs.items():
            found |= _of_pack(name, folder, runtime, arithmetic)
        for given in networks:
            network = baseline.opened(given, runtime)
            sigma = SIGMA if network.sigma else None
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


def timed(methods: Mapping[Contestant, Callable[[Image], Image]], image: Image, rounds: int) -> list[Timing]:
    """Time every method once per round in CPU seconds, after one run of each that does not count."""
    calls = {contestant: partial(method, image) for contestant, method in methods.items()}
    megapixels = image.shape[0] * image.shape[1] / 1e6
    return [
        Timing(*contestant, *(f(values) / megapixels for f in (median, min, max)))
        for contestant, values in interleaved(calls, rounds).items()
    ]


def speed_table(timings: Sequence[Timing]) -> str:
    """A Markdown table, fastest first."""
    rows = [["method", "precision", "runtime", "MPix/s", "CPU s per MPix", "fastest to slowest"]]
    for t in sorted(timings, key=lambda timing: timing.median):
        span = f"{t.fastest:.3f} to {t.slowest:.3f}"
        rows.append([t.method, t.precision, t.runtime, f"{t.megapixels_per_second:.2f}", f"{t.median:.3f}", span])
    return table(rows, left=3)
