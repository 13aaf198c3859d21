"""What packs restore in comparison with their float pack and with the clean photos."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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
from ..targets.calibration import DamagedPhoto, forms_of
from .solve import decibels

__all__ = [
    "FloatResults",
    "PackQuality",
    "best_uniform",
    "errors",
    "float_results",
    "graph_bytes",
    "measure_pack",
    "quality_table",
]


class FloatResults(NamedTuple):
    """What the float pack makes of each photo, in the form in which it is run."""

    photos: Sequence[DamagedPhoto]
    restored: Sequence[Image]  # (H, W, 3) uint16


@dataclass(frozen=True)
class PackQuality:
    """One pack in one runtime: its graphs' bytes; PSNR to the float pack in dB; PSNR in dB and HaarPSI to the truth,
    means over the photos; CPU seconds per megapixel, one thread, None where an interpreter stands in for Core ML.
    """

    name: str
    runtime: str
    bytes: int  # of its graphs
    worst_db: float  # PSNR to the float pack of the worst photo
    mean_db: float
    psnr: float  # to the clean photos, mean, dB
    haarpsi: float  # to the clean photos, mean
    seconds: float | None  # CPU seconds per megapixel, one thread; None where an interpreter stands in for Core ML


def float_results(folder: Path, photos: Sequence[DamagedPhoto]) -> FloatResults:
    """Restore the photos with the float pack in `folder`."""
    restorer = Restorer.from_pack(folder, graphs=forms_of(Manifest.load(folder))[0], threads=1)
    return FloatResults(photos, [restorer(photo.damaged, seed=photo.seed) for photo in photos])


def errors(folder: Path, truth: FloatResults, runtime: str = "onnxruntime", form: str | None = None) -> list[float]:
    """Mean squared difference of each restored photo from that of the float pack, on the scale 0 to 1."""
    restorer = Restorer.from_pack(folder, runtime, form or forms_of(Manifest.load(folder))[0], threads=1)
    return [
        _mean_square(restorer(photo.damaged, seed=photo.seed), restored)
        for photo, restored in zip(truth.photos, truth.restored, strict=True)
    ]


def graph_bytes(manifest: Manifest, target: str) -> int:
    """Size of the files that one target runs from."""
    files = {manifest.graph_file(name, target) for name in manifest.graphs}
    files |= {part for name in manifest.graphs for part in manifest.graph_parts(name, target)}
    return sum(file.bytes for file in files)


def measure_pack(name: str, folder: Path, truth: FloatResults, runtime: str) -> PackQuality:
    """Restore the photos with the pack in `folder`; errors are those of the worse of its forms."""
    manifest = Manifest.load(folder)
    found = [_restored(folder, truth.photos, runtime, form) for form in forms_of(manifest)]
    differences = [
        max(_mean_square(restored[i], truth.restored[i]) for restored, _ in found) for i in range(len(truth.photos))
    ]
    restored, seconds = found[0]
    clean = [photo.clean for photo in truth.photos]
    return PackQuality(
        name=name,
        runtime=runtime,
        bytes=graph_bytes(manifest, runtime if runtime in manifest.precision else "onnx"),
        worst_db=decibels(max(differences)),
        mean_db=fmean(decibels(max(difference, 1e-12)) for difference in differences),
        psnr=fmean(psnr(a, b) for a, b in zip(restored, clean, strict=True)),
        haarpsi=fmean(haarpsi(a, b) for a, b in zip(restored, clean, strict=True)),
        seconds=seconds if runtime != "coreml" or sys.platform == "darwin" else None,
    )


def quality_table(rows: Sequence[PackQuality]) -> str:
    """A Markdown table; what is lost is lost compared with the first row."""
    columns = ("graphs", "runtime", "MB", "worst dB", "mean dB", "PSNR", "lost", "HaarPSI", "lost", "CPU s/MP")
    head = f"| {' | '.join(columns)} |\n| --- | --- |{' ---: |' * 8}"
    lines = [
        f"| {row.name} | {row.runtime} | {row.bytes / 1e6:.3f} | {row.worst_db:.1f} | {row.mean_db:.1f} | "
        f"{row.psnr:.3f} | {rows[0].psnr - row.psnr:.3f} | {row.haarpsi:.4f} | {rows[0].haarpsi - row.haarpsi:.4f} | "
        f"{'-' if row.seconds is None else f'{row.seconds:.2f}'} |"
        for row in rows
    ]
    return "\n".join([head, *lines])


def best_uniform(rows: Mapping[str, PackQuality], budget_db: float) -> str | None:
    """Of packs at one precision throughout, the smallest that keeps the budget."""
    fitting = [name for name, row in rows.items() if row.worst_db >= budget_db]
    return min(fitting, key=lambda name: rows[name].bytes, default=None)


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


def _mean_square(a: Image, b: Image) -> float:
    return float(np.mean(np.square((a.astype(np.float64) - b.astype(np.float64)) / np.iinfo(a.dtype).max)))
