"""What the benchmark compares: a method restores a photo, with the settings that suit a trial."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from ...core.arrays import Image
from . import classical
from .cache import Cache
from .photos import Trial

__all__ = ["BM3D", "DTPM", "INPUT", "NLM", "PREDICTOR", "Method", "bm3d", "nl_means", "our_methods"]

INPUT = "input"
NLM = "fastNlMeans"
BM3D = "BM3D"
PREDICTOR = "predictor alone"
DTPM = "DTPM"

Restore = Callable[..., Image]  # of a photo; ours also takes strength= and seed=


@dataclass(frozen=True)
class Method:
    """A way to restore, (H, W, 3) uint8 in and out.

    settings: what was chosen for the damage, in words. version: of the program behind it, so that its results may be
    kept on disk; empty for results that must be made anew. only: the photos that it restores; None for all.
    """

    name: str
    restore: Callable[[Image], Image]
    settings: str = ""
    version: str = ""
    only: Collection[str] | None = None


def our_methods(restore: Restore, name: str = DTPM) -> list[Method]:
    """The predictor alone and the whole model at its usual strength, seed 0; name: of the whole model."""
    alone = PREDICTOR if name == DTPM else f"{name}, {PREDICTOR}"
    return [Method(alone, partial(restore, strength=0.0, seed=0)), Method(name, partial(restore, seed=0))]


def nl_means(trial: Trial, cache: Cache) -> Method:
    """OpenCV's fastNlMeans with the best settings for the trial."""
    best = classical.tuned_nl_means(trial, cache)
    settings = f"h = hColor = {best.strength:g}, template {best.template}, search {best.search}"
    return Method(NLM, partial(classical.fast_nl_means, settings=best), settings, classical.opencv_version())


def bm3d(trial: Trial, cache: Cache, only: Collection[str]) -> Method:
    """BM3D with the best sigma for the trial, on some photos: it takes 100 s per megapixel."""
    sigma = classical.tuned_bm3d_sigma(trial, cache)
    return Method(BM3D, partial(classical.bm3d, sigma=sigma), f"sigma {sigma:g}", classical.bm3d_version(), only)
