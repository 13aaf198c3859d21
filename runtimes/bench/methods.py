"""What the benchmark compares: a method restores a photo, with the settings that suit a trial.

Classical denoisers are tuned to do their best, on one thread. OpenCV's fastNlMeansDenoisingColored has no good default
for a given damage, so strength and window sizes are chosen by PSNR on validation photos, once per damage. BM3D gets
the true sigma of plain noise; for other damage its sigma is chosen in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ...core.arrays import Image
from ...core.errors import MissingExtraError
from ...core.metrics.baselines import bm3d, bm3d_version
from .trials import Trial, centres, evenly
from .tuning import ResultCache, best_setting

__all__ = [
    "BenchMethod",
    "Nlm",
    "bm3d_method",
    "bm3d_version",
    "fast_nl_means",
    "nl_means_method",
    "opencv_version",
    "our_methods",
    "tuned_bm3d_sigma",
    "tuned_nl_means",
]

INPUT = "input"
NLM = "fastNlMeans"
BM3D = "BM3D"
PREDICTOR = "predictor alone"
DTPM = "DTPM"

NLM_STRENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 24, 28, 32, 37, 42, 50, 60)
NLM_WINDOWS = ((7, 21), (3, 21), (5, 11), (3, 11), (3, 7), (3, 5))  # template, search; the first is the library's own
NLM_TUNING = 256  # side of the central squares of the validation photos
BM3D_SIGMAS = (2.0, 3.5, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0)
BM3D_TUNING = (5, 128)  # photos and side of their central squares: it takes 100 s per megapixel


@dataclass(frozen=True)
class BenchMethod:
    """A way to restore."""

    name: str
    restore: Callable[[Image], Image]  # (H, W, 3) uint8 in and out
    settings: str = ""  # what was chosen for the damage, in words
    version: str = ""  # of the program behind it, so that its results may be kept on disk; empty: never kept
    only: Collection[str] | None = None  # the photos that it restores; None for all


def our_methods(restore: Callable[..., Image], name: str = DTPM) -> list[BenchMethod]:
    """The predictor and the whole model at its usual strength, seed 0.

    Args:
        restore: Restores a photo; also takes strength= and seed=.
        name: Of the whole model.
    """
    alone = PREDICTOR if name == DTPM else f"{name}, {PREDICTOR}"
    return [BenchMethod(alone, partial(restore, strength=0.0, seed=0)), BenchMethod(name, partial(restore, seed=0))]


def nl_means_method(trial: Trial, cache: ResultCache) -> BenchMethod:
    """OpenCV's fastNlMeans with the best settings for the trial."""
    best = tuned_nl_means(trial, cache)
    settings = f"h = hColor = {best.strength:g}, template {best.template}, search {best.search}"
    return BenchMethod(NLM, partial(fast_nl_means, settings=best), settings, opencv_version())


def bm3d_method(trial: Trial, cache: ResultCache, only: Collection[str]) -> BenchMethod:
    """BM3D with the best sigma for the trial, for some photos: it takes 100 s per megapixel."""
    sigma = tuned_bm3d_sigma(trial, cache)
    return BenchMethod(BM3D, partial(bm3d, sigma=sigma), f"sigma {sigma:g}", bm3d_version(), only)


class Nlm(NamedTuple):
    """The settings of fastNlMeans."""

    strength: float  # h = hColor, in grey levels
    template: int  # side of the template window in pixels
    search: int  # side of the search window in pixels


def fast_nl_means(image: Image, settings: Nlm) -> Image:
    """OpenCV's fastNlMeansDenoisingColored; (H, W, 3) uint8 in and out."""
    cv2 = _cv2()
    blue_first = np.ascontiguousarray(image[..., ::-1])
    strength, template, search = settings
    return cv2.fastNlMeansDenoisingColored(blue_first, None, strength, strength, template, search)[..., ::-1].copy()


def _cv2() -> ModuleType:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise MissingExtraError("opencv-python-headless", "bench", "fastNlMeans") from error
    cv2.setNumThreads(1)
    return cv2


def opencv_version() -> str:
    """The version of OpenCV, which decides what fastNlMeans returns."""
    return str(_cv2().__version__)


def tuned_nl_means(trial: Trial, cache: ResultCache) -> Nlm:
    """The settings of fastNlMeans with the best mean PSNR on the tuning photos."""
    pairs, known = centres(trial.tuning, NLM_TUNING), f"fastNlMeans {opencv_version()}"
    per_window: list[tuple[float, Nlm]] = []
    for template, search in NLM_WINDOWS:
        settings = [Nlm(strength, template, search) for strength in NLM_STRENGTHS]
        per_window.append(best_setting(settings, fast_nl_means, pairs, cache, known))
    return max(per_window)[1]


def tuned_bm3d_sigma(trial: Trial, cache: ResultCache) -> float:
    """The true sigma of plain noise; for other damage the one with the best mean PSNR on some tuning photos."""
    if trial.sigma is not None:
        return trial.sigma
    count, side = BM3D_TUNING
    pairs = centres(evenly(trial.tuning, count), side)
    return best_setting(BM3D_SIGMAS, bm3d, pairs, cache, f"BM3D {bm3d_version()}")[1]
