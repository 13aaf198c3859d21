"""Classical denoisers as baselines, each tuned so that it does its best; one thread.

OpenCV's fastNlMeansDenoisingColored has no good default for a given damage, so strength and window sizes are chosen
by PSNR on validation photos, once per damage. BM3D gets the true sigma of plain noise; for other damage its sigma is
chosen in the same way.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from ...core.arrays import Image
from ...core.errors import MissingExtraError
from ...core.metrics.baselines import bm3d, bm3d_version
from .cache import Cache
from .photos import Trial, centres, evenly
from .tuning import best

__all__ = [
    "Nlm",
    "bm3d",
    "bm3d_version",
    "fast_nl_means",
    "opencv_version",
    "tuned_bm3d_sigma",
    "tuned_nl_means",
]

NLM_STRENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 24, 28, 32, 37, 42, 50, 60)
NLM_WINDOWS = ((7, 21), (3, 21), (5, 11), (3, 11), (3, 7), (3, 5))  # template, search; the first is the library's own
NLM_TUNING = 256  # side of the central squares of the validation photos
BM3D_SIGMAS = (2.0, 3.5, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0)
BM3D_TUNING = (5, 128)  # photos and side of their central squares: it takes 100 s per megapixel


class Nlm(NamedTuple):
    """h = hColor in grey levels, and the sides of the template and the search window in pixels."""

    strength: float
    template: int
    search: int


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
    """The version of OpenCV, which decides what fastNlMeans gives."""
    return str(_cv2().__version__)


def tuned_nl_means(trial: Trial, cache: Cache) -> Nlm:
    """The settings of fastNlMeans with the best mean PSNR on the tuning photos."""
    pairs, known = centres(trial.tuning, NLM_TUNING), f"fastNlMeans {opencv_version()}"
    per_window: list[tuple[float, Nlm]] = []
    for template, search in NLM_WINDOWS:
        settings = [Nlm(strength, template, search) for strength in NLM_STRENGTHS]
        per_window.append(best(settings, fast_nl_means, pairs, cache, known))
    return max(per_window)[1]


def tuned_bm3d_sigma(trial: Trial, cache: Cache) -> float:
    """The true sigma of plain noise; for other damage that with the best mean PSNR on some tuning photos."""
    if trial.sigma is not None:
        return trial.sigma
    count, side = BM3D_TUNING
    pairs = centres(evenly(trial.tuning, count), side)
    return best(BM3D_SIGMAS, bm3d, pairs, cache, f"BM3D {bm3d_version()}")[1]
