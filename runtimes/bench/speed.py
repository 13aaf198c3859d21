"""Seconds per megapixel, ours and OpenCV's in turn, so that a busy moment of the machine hits both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from ...core.arrays import Image
from ...core.manifest import Manifest
from ...core.restore import Restorer
from ...core.timing import interleaved
from .rivals import Nlm, fast_nl_means

__all__ = ["Timing", "contestants", "made_photo", "race"]

NLM = Nlm(10, 7, 21)  # the library's own window sizes


@dataclass(frozen=True)
class Timing:
    """Seconds per megapixel over all rounds."""

    method: str
    median: float
    fastest: float
    slowest: float

    def __str__(self) -> str:
        return f"{self.method:<16}{self.median:8.3f}  ({self.fastest:.3f} to {self.slowest:.3f})"


def made_photo(megapixels: float) -> Image:
    """A noisy gradient of 4 : 3, (H, W, 3) uint8: time does not depend on what a photo shows."""
    height = max(1, round((megapixels * 1e6 * 3 / 4) ** 0.5))
    width = max(1, round(height * 4 / 3))
    ramp = np.linspace(30, 225, width)[None, :, None]
    return np.clip(ramp + np.random.default_rng(0).normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


def contestants(
    folder: Path, runtime: str = "onnxruntime", arithmetic: str | None = None
) -> dict[str, Callable[[Image], Image]]:
    """The forms of the pack that it has, its predictor alone, and fastNlMeans; runtime, arithmetic: of the pack."""
    graphs = Manifest.load(folder).graphs
    forms = [form for form, graph in (("split", "denoise"), ("fused", "fused")) if graph in graphs]
    restorers = {form: Restorer.from_pack(folder, runtime, form, arithmetic=arithmetic) for form in forms}
    ours: dict[str, Callable[[Image], Image]] = {f"DTPM, {form}": restorer for form, restorer in restorers.items()}
    if "predict" in graphs:
        ours["predictor alone"] = partial(restorers[forms[0]], strength=0.0)
    return ours | {"fastNlMeans": partial(fast_nl_means, settings=NLM)}


def race(methods: Mapping[str, Callable[[Image], Image]], image: Image, rounds: int) -> list[Timing]:
    """Time every method once per round, after one run of each that does not count."""
    calls = {name: partial(method, image) for name, method in methods.items()}
    seconds = interleaved(calls, rounds, time.perf_counter)
    megapixels = image.shape[0] * image.shape[1] / 1e6
    return [_timing(name, [s / megapixels for s in values]) for name, values in seconds.items()]


def _timing(name: str, seconds: list[float]) -> Timing:
    return Timing(name, median(seconds), min(seconds), max(seconds))
