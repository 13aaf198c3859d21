"""Restore the same damaged photos with every method and measure what comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from ...core import metrics
from ...core.arrays import Image
from ...core.metrics import read_lpips_weights
from . import rivals
from .cache import Cache
from .photos import DAMAGES, BenchPhoto, Damage, digest

__all__ = [
    "BM3D",
    "DTPM",
    "INPUT",
    "NLM",
    "PREDICTOR",
    "Judge",
    "Measurement",
    "Method",
    "Metric",
    "mean",
    "measure",
    "our_methods",
    "tuned_rivals",
]

INPUT = "input"
NLM = "fastNlMeans"
BM3D = "BM3D"
PREDICTOR = "predictor alone"
DTPM = "DTPM"

Metric = Callable[[Image, Image], float]  # of the restored and the true photo
Restore = Callable[..., Image]  # of a photo; our own also takes strength= and seed=


@dataclass(frozen=True)
class Method:
    """A way to restore, (H, W, 3) uint8 in and out.

    settings: what was chosen for the damage, in words. version: of the program behind it, so that its results may be
    kept on disk; empty for results that must be made anew.
    """

    name: str
    restore: Callable[[Image], Image]
    settings: str = ""
    version: str = ""


@dataclass(frozen=True)
class Measurement:
    """What one method made of one damaged photo."""

    photo: str
    damage: str
    method: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Judge:
    """Measures restored photos, each pair of pictures once. made_of: the hash of the code and data of the metrics."""

    cache: Cache
    metrics: Mapping[str, Metric]
    made_of: str

    @classmethod
    def open(cls, cache: Cache, lpips: Path | None = None) -> Judge:
        """The metrics of the tables; LPIPS only with a weights file (UsageError where it is none)."""
        table: dict[str, Metric] = {
            "PSNR": metrics.psnr,
            "SSIM": metrics.ssim,
            "HaarPSI": metrics.haarpsi,
            "NIQE": _niqe,
            "SWD": metrics.swd,
        }
        if lpips is not None:
            table["LPIPS"] = partial(metrics.lpips, weights=read_lpips_weights(lpips))
        return cls(cache, table, _made_of(lpips))

    def __call__(self, restored: Image, true: Image) -> dict[str, float]:
        """Every metric of one restored photo."""
        key = f"metrics {self.made_of} {digest(restored)} {digest(true)}"
        return self.cache.numbers(key, lambda: {name: metric(restored, true) for name, metric in self.metrics.items()})


def _made_of(lpips: Path | None) -> str:
    folder = Path(str(metrics.__file__)).parent
    files = sorted(path for path in folder.iterdir() if path.suffix in (".py", ".npz"))
    content = b"".join(path.read_bytes() for path in [*files, *([lpips] if lpips else [])])
    return hashlib.sha256(content).hexdigest()


def _niqe(restored: Image, _: Image) -> float:
    return metrics.niqe(restored)


def our_methods(restore: Restore) -> list[Method]:
    """The predictor alone, and the whole model at its usual strength; seed 0."""
    return [Method(PREDICTOR, partial(restore, strength=0.0, seed=0)), Method(DTPM, partial(restore, seed=0))]


def tuned_rivals(validation: Sequence[BenchPhoto], cache: Cache, *, with_bm3d: bool) -> dict[str, list[Method]]:
    """The rivals by damage, each with the settings that are best for it on the validation photos."""
    found: dict[str, list[Method]] = {}
    for damage in tqdm(DAMAGES, desc="tuning rivals", unit="damage", disable=None):
        found[damage.name] = [_nl_means(damage, validation, cache)]
        found[damage.name] += [_bm3d(damage, validation, cache)] if with_bm3d else []
    return found


def _nl_means(damage: Damage, validation: Sequence[BenchPhoto], cache: Cache) -> Method:
    best = rivals.tuned_nl_means(damage, validation, cache)
    settings = f"h = hColor = {best.strength:g}, template {best.template}, search {best.search}"
    restore = partial(rivals.fast_nl_means, settings=best)
    return Method(NLM, restore, settings, rivals.opencv_version())


def _bm3d(damage: Damage, validation: Sequence[BenchPhoto], cache: Cache) -> Method:
    sigma = rivals.tuned_bm3d_sigma(damage, validation, cache)
    return Method(BM3D, partial(rivals.bm3d, sigma=sigma), f"sigma {sigma:g}", rivals.bm3d_version())


def measure(
    photos: Sequence[BenchPhoto],
    methods: Mapping[str, Sequence[Method]],
    judge: Judge,
    bm3d_photos: Collection[str],
) -> Iterator[Measurement]:
    """Every photo with every damage by the methods for that damage; BM3D only for the photos that are named."""
    for photo in tqdm(photos, desc="restoring and measuring", unit="photo", disable=None):
        for damage in DAMAGES:
            damaged = damage(photo.pixels)
            yield Measurement(photo.name, damage.name, INPUT, judge(damaged, photo.pixels))
            for method in methods[damage.name]:
                if method.name != BM3D or photo.name in bm3d_photos:
                    restored = _restored(method, damaged, judge.cache)
                    yield Measurement(photo.name, damage.name, method.name, judge(restored, photo.pixels))


def _restored(method: Method, damaged: Image, cache: Cache) -> Image:
    if not method.version:
        return method.restore(damaged)
    key = f"{method.name} {method.version} {method.settings} {digest(damaged)}"
    return cache.picture(key, partial(method.restore, damaged))


def mean(
    measurements: Iterable[Measurement], metric: str, method: str, damages: Collection[str] | None = None
) -> float:
    """The mean of a metric over all measurements of a method, of some damages only if they are named."""
    chosen = [m for m in measurements if m.method == method and (damages is None or m.damage in damages)]
    return fmean(m.values[metric] for m in chosen)
