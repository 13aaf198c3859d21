"""The quality-speed plot: megapixels per second on one core against what a method makes of the photos."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from statistics import median

from ...core.arrays import Image
from ...core.degradations.fixed import CLEAN
from ...core.markdown import Panel, Point, scatter
from ...core.timing import interleaved
from .judge import BETTER
from .methods import BM3D, NLM, Method
from .quality import Measurement, Results, mean
from .speed import made_photo

__all__ = ["quality_speed_plot", "speeds"]

METRICS = {"PSNR": "PSNR, dB", "HaarPSI": "HaarPSI", "SWD": "SWD"}
SERIES = ("ours", "networks of others", "classical")
MEGAPIXELS = 0.25  # of the photo that is timed
ROUNDS = 3


def speeds(methods: Sequence[Method], rounds: int = ROUNDS) -> dict[str, float]:
    """Megapixels per second of each method by its name, in turn: CPU time of one thread."""
    image: Image = made_photo(MEGAPIXELS)
    seconds = interleaved({method.name: partial(method.restore, image) for method in methods}, rounds)
    return {name: image.shape[0] * image.shape[1] / 1e6 / median(values) for name, values in seconds.items()}


def quality_speed_plot(results: Results, speed: Mapping[str, float], networks: Collection[str]) -> str:
    """One panel per metric, as SVG: the mean over damages, for methods that restored every photo of every damage.

    Args:
        results: What was measured; undamaged photos count only where there is nothing else.
        speed: Megapixels per second by the name of a method.
        networks: The names that stand for networks of others.
    """
    damaged = [m for m in results.measurements if m.damage != CLEAN] or results.measurements
    everything = {(m.damage, m.photo) for m in damaged}
    there = [name for name in speed if {(m.damage, m.photo) for m in damaged if m.method == name} == everything]
    there.sort(key=lambda name: SERIES.index(_series(name, networks)))
    panels = [
        Panel(
            f"{metric}, {_better(metric)}",
            title,
            [_point(damaged, metric, name, speed, networks) for name in there],
        )
        for metric, title in METRICS.items()
        if metric in damaged[0].values
    ]
    return scatter(panels, "megapixels per second on one core")


def _better(metric: str) -> str:
    return "higher is better" if BETTER[metric] > 0 else "lower is better"


def _point(
    measurements: Sequence[Measurement], metric: str, name: str, speed: Mapping[str, float], networks: Collection[str]
) -> Point:
    value = mean(measurements, metric, name, {m.damage for m in measurements})
    return Point(name, speed[name], value, _series(name, networks))


def _series(name: str, networks: Collection[str]) -> str:
    return SERIES[2] if name in (NLM, BM3D) else SERIES[1] if name in networks else SERIES[0]
