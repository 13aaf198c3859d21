"""What packs restore in comparison with their float pack and with the clean photos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import NamedTuple

import numpy as np

from ...core.arrays import Image
from ...core.metrics import haarpsi, psnr
from ...core.pack.manifest import Manifest
from ...core.restore.restorer import Restorer
from ..targets import Target
from ..targets.calibration import DamagedPhoto, forms_of

__all__ = ["FloatResults", "PackQuality", "decibels", "errors", "float_results", "mean_square", "measure_pack"]


class FloatResults(NamedTuple):
    """What the float pack makes of each photo, in the form in which it is run."""

    photos: Sequence[DamagedPhoto]
    restored: Sequence[Image]  # (H, W, 3) uint16


@dataclass(frozen=True)
class PackQuality:
    """One pack in one runtime."""

    name: str
    runtime: str
    bytes: int  # of its graphs
    worst_db: float  # PSNR to the float pack of the worst photo
    mean_db: float
    psnr: float  # to the clean photos, mean, dB
    haarpsi: float  # to the clean photos, mean
    seconds: float | None  # CPU seconds per megapixel, one thread; None where an interpreter stands in for the runtime


def mean_square(decibels: float) -> float:
    """The mean squared difference, on the scale 0 to 1, of a PSNR."""
    return 10 ** (-decibels / 10)


def decibels(mean_square: float) -> float:
    """PSNR of a mean squared difference; inf for 0."""
    return math.inf if mean_square <= 0 else -10 * math.log10(mean_square)


def float_results(folder: Path, photos: Sequence[DamagedPhoto]) -> FloatResults:
    """Restore the photos with the float pack in `folder`."""
    restorer = Restorer.from_pack(folder, graphs=forms_of(Manifest.load(folder))[0], threads=1)
    return FloatResults(photos, [restorer(photo.damaged, seed=photo.seed) for photo in photos])


def errors(folder: Path, truth: FloatResults, form: str) -> list[float]:
    """Mean squared difference of each restored photo from that of the float pack, on the scale 0 to 1."""
    restorer = Restorer.from_pack(folder, graphs=form, threads=1)
    restored = [restorer(photo.damaged, seed=photo.seed) for photo in truth.photos]
    return list(map(_difference, restored, truth.restored))


def measure_pack(name: str, folder: Path, truth: FloatResults, target: Target) -> PackQuality:
    """Restore the photos with the pack in `folder`; errors are those of the worse of its forms."""
    manifest = Manifest.load(folder)
    found = [_restored(folder, truth.photos, target.runtime, form) for form in forms_of(manifest)]
    by_form = [map(_difference, restored, truth.restored) for restored, _ in found]
    differences = [max(each) for each in zip(*by_form, strict=True)]
    files = {manifest.graph_file(name, target.name) for name in manifest.graphs}
    files |= {part for name in manifest.graphs for part in manifest.graph_parts(name, target.name)}
    restored, seconds = found[0]
    clean = [photo.clean for photo in truth.photos]
    return PackQuality(
        name=name,
        runtime=target.runtime,
        bytes=sum(file.bytes for file in files),
        worst_db=decibels(max(differences)),
        mean_db=fmean(decibels(max(difference, 1e-12)) for difference in differences),
        psnr=fmean(map(psnr, restored, clean)),
        haarpsi=fmean(map(haarpsi, restored, clean)),
        seconds=seconds if target.timed else None,
    )


def _restored(folder: Path, photos: Sequence[DamagedPhoto], runtime: str, form: str) -> tuple[list[np.ndarray], float]:
    """The restored photos, and the median of CPU seconds per megapixel; the first photo also warms up, untimed."""
    restorer = Restorer.from_pack(folder, runtime, form, threads=1)
    restorer(photos[0].damaged, seed=photos[0].seed)
    restored, seconds = [], []
    for photo in photos:
        start = process_time()
        restored.append(restorer(photo.damaged, seed=photo.seed))
        seconds.append((process_time() - start) / photo.damaged[..., 0].size * 1e6)
    return restored, float(np.median(seconds))


def _difference(a: Image, b: Image) -> float:
    return float(np.mean(np.square((a.astype(np.float64) - b.astype(np.float64)) / np.iinfo(a.dtype).max)))
