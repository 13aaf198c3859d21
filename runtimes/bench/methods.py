"""What the benchmark compares: a method restores a photo, with the settings that suit a trial.

Classical denoisers are tuned to do their best, on one thread. OpenCV's fastNlMeansDenoisingColored has no good default
for a given damage, so strength and window sizes are chosen by PSNR on validation photos, once per damage. BM3D gets
the true sigma of plain noise; for other damage its sigma is chosen in the same way. Results of what is slow are kept
on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from operator import itemgetter
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image as PilImage

from ...core.arrays import Image
from ...core.degradations.fixed import image_digest
from ...core.errors import MissingExtraError
from ...core.files import atomic_output
from ...core.metrics import psnr
from ...core.metrics.baselines import bm3d, bm3d_version
from .trials import BenchPair, Trial, centres, evenly

__all__ = [
    "BenchMethod",
    "Nlm",
    "ResultCache",
    "best_setting",
    "bm3d_method",
    "fast_nl_means",
    "nl_means_method",
    "opencv_version",
    "our_methods",
    "predictor_of",
    "versions",
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

Setting = TypeVar("Setting")


@dataclass(frozen=True)
class BenchMethod:
    """A way to restore."""

    name: str
    restore: Callable[[Image], Image]  # (H, W, 3) uint8 in and out
    settings: str = ""  # what was chosen for the damage, in words
    version: str = ""  # of the program behind it, so that its results may be kept on disk; empty: never kept
    only: Collection[str] | None = None  # the photos that it restores; None for all


@dataclass(frozen=True)
class ResultCache:
    """A folder of results, made with the first one.

    A key is the full text of what was computed; its hash names the file. So an entry is never stale, and the folder
    may be deleted at any time.
    """

    folder: Path

    def image(self, key: str, make: Callable[[], Image]) -> Image:
        """What `make` returns, (H, W, 3) uint8, computed once per key."""
        path = self._path(key, ".png")
        if path.exists():
            with PilImage.open(path) as stored:
                return np.asarray(stored)
        made = make()
        with atomic_output(path, overwrite=True) as temporary:
            PilImage.fromarray(made).save(temporary)
        return made

    def numbers(self, key: str, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What `make` returns, computed once per key."""
        path = self._path(key, ".json")
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        made = make()
        with atomic_output(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(made), encoding="utf-8")
        return made

    def _path(self, key: str, suffix: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        path = self.folder / name[:2] / f"{name[2:34]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def best_setting(
    settings: Iterable[Setting],
    method: Callable[[Image, Setting], Image],
    pairs: Sequence[BenchPair],
    cache: ResultCache,
    version: str,
) -> tuple[float, Setting]:
    """The best mean PSNR in dB, and the setting that reaches it; `method` takes and returns (H, W, 3) uint8.

    The settings rise in strength: the search ends when the PSNR falls twice in a row. The cache keeps each result under
    `version`, which names the method and the version of its program.
    """
    key = f"{version} {' '.join(image_digest(image)[:16] for pair in pairs for image in (pair.true, pair.damaged))}"

    def score(setting: Setting) -> dict[str, float]:
        return {"psnr": float(np.mean([psnr(pair.true, method(pair.damaged, setting)) for pair in pairs]))}

    scores: list[tuple[float, Setting]] = []
    for setting in settings:
        found = cache.numbers(f"{key} {setting}", partial(score, setting))
        scores.append((found["psnr"], setting))
        if len(scores) > 2 and scores[-3][0] > scores[-2][0] > scores[-1][0]:
            break
    return max(scores, key=itemgetter(0))


def our_methods(restore: Callable[..., Image], name: str = DTPM) -> list[BenchMethod]:
    """The predictor and the whole model, called `name`, at its usual strength, seed 0.

    restore: Restores a photo; also takes strength= and seed=.
    """
    alone = partial(restore, strength=0.0, seed=0)
    return [BenchMethod(predictor_of(name), alone), BenchMethod(name, partial(restore, seed=0))]


def predictor_of(name: str) -> str:
    """The name of the predictor of a model."""
    return PREDICTOR if name == DTPM else f"{name}, {PREDICTOR}"


def nl_means_method(trial: Trial, cache: ResultCache) -> BenchMethod:
    """OpenCV's fastNlMeans with the settings of the best mean PSNR on the tuning photos."""
    pairs, version = centres(trial.tuning, NLM_TUNING), opencv_version()
    rows = ([Nlm(strength, *windows) for strength in NLM_STRENGTHS] for windows in NLM_WINDOWS)
    _, best = max(best_setting(row, fast_nl_means, pairs, cache, f"fastNlMeans {version}") for row in rows)
    settings = f"h = hColor = {best.strength:g}, template {best.template}, search {best.search}"
    return BenchMethod(NLM, partial(fast_nl_means, settings=best), settings, version)


def bm3d_method(trial: Trial, cache: ResultCache, only: Collection[str]) -> BenchMethod:
    """BM3D for some photos: it takes 100 s per megapixel.

    It gets the true sigma of plain noise; for other damage the one with the best mean PSNR on some tuning photos.
    """
    sigma, version = trial.sigma, bm3d_version()
    if sigma is None:
        count, side = BM3D_TUNING
        pairs = centres(evenly(trial.tuning, count), side)
        _, sigma = best_setting(BM3D_SIGMAS, bm3d, pairs, cache, f"BM3D {version}")
    return BenchMethod(BM3D, partial(bm3d, sigma=sigma), f"sigma {sigma:g}", version, only)


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


def versions() -> str:
    """The versions of all that the numbers depend on."""
    ours = [f"{package} {metadata.version(package)}" for package in ("pocketprior", "numpy", "onnxruntime", "pillow")]
    return ", ".join([*ours, f"OpenCV {opencv_version()}", f"bm3d {bm3d_version()}"])
