"""What packs at several levels are like on photos that no search has seen."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import process_time

import numpy as np

from ...core.metrics import haarpsi, psnr
from ...core.pack.manifest import Manifest
from ...core.restore.restorer import Restorer
from .samples import Sample, forms_of
from .solve import decibels
from .variant import Reference

__all__ = ["Row", "best_uniform", "graph_bytes", "measure", "table"]


@dataclass(frozen=True)
class Row:
    """One pack in one runtime: its graphs' bytes; PSNR to the float pack in dB; PSNR in dB and HaarPSI to the truth,
    means over the photos; CPU seconds per megapixel, one thread, None where an interpreter stands in for Core ML.
    """

    name: str
    runtime: str
    bytes: int
    worst_db: float
    mean_db: float
    psnr: float
    haarpsi: float
    seconds: float | None


def graph_bytes(manifest: Manifest, target: str) -> int:
    """Size of the files that one target is run from."""
    files = {manifest.graph_file(name, target) for name in manifest.graphs}
    files |= {part for name in manifest.graphs for part in manifest.graph_parts(name, target)}
    return sum(file.bytes for file in files)


def measure(name: str, folder: Path, truth: Reference, runtime: str, arithmetic: str | None = None) -> Row:
    """Restore the samples with the pack in `folder`, in the worse of its forms as to the float pack."""
    manifest = Manifest.load(folder)
    found = [_restored(folder, truth.samples, runtime, form, arithmetic) for form in forms_of(manifest)]
    errors = [
        max(_mean_square(restored[i], truth.restored[i]) for restored, _ in found) for i in range(len(truth.samples))
    ]
    restored, seconds = found[0]
    clean = [sample.clean for sample in truth.samples]
    target = runtime if runtime in manifest.precision else "onnx"
    return Row(
        name=name,
        runtime=runtime + (f" {arithmetic}" if arithmetic else ""),
        bytes=graph_bytes(manifest, target),
        worst_db=decibels(max(errors)),
        mean_db=fmean(decibels(max(error, 1e-12)) for error in errors),
        psnr=fmean(psnr(a, b) for a, b in zip(restored, clean, strict=True)),
        haarpsi=fmean(haarpsi(a, b) for a, b in zip(restored, clean, strict=True)),
        seconds=seconds if runtime != "coreml" or sys.platform == "darwin" else None,
    )


def table(rows: Sequence[Row]) -> str:
    """A Markdown table; what is lost is lost to the first row."""
    columns = ("graphs", "runtime", "MB", "worst dB", "mean dB", "PSNR", "lost", "HaarPSI", "lost", "CPU s/MP")
    head = f"| {' | '.join(columns)} |\n| --- | --- |{' ---: |' * 8}"
    lines = [
        f"| {row.name} | {row.runtime} | {row.bytes / 1e6:.3f} | {row.worst_db:.1f} | {row.mean_db:.1f} | "
        f"{row.psnr:.3f} | {rows[0].psnr - row.psnr:.3f} | {row.haarpsi:.4f} | {rows[0].haarpsi - row.haarpsi:.4f} | "
        f"{'-' if row.seconds is None else f'{row.seconds:.2f}'} |"
        for row in rows
    ]
    return "\n".join([head, *lines])


def _restored(
    folder: Path, samples: Sequence[Sample], runtime: str, form: str, arithmetic: str | None
) -> tuple[list[np.ndarray], float]:
    """The restored samples; the first, which warms up, is done once more than it is timed."""
    restorer = Restorer.from_pack(folder, runtime, form, threads=1, arithmetic=arithmetic)
    restorer(samples[0].damaged, seed=samples[0].seed)
    restored, seconds = [], []
    for sample in samples:
        start = process_time()
        restored.append(restorer(sample.damaged, seed=sample.seed))
        seconds.append((process_time() - start) / sample.damaged[..., 0].size * 1e6)
    return restored, float(np.median(seconds))


def _mean_square(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(np.square((a.astype(np.float64) - b.astype(np.float64)) / np.iinfo(a.dtype).max)))


def best_uniform(rows: Mapping[str, Row], budget_db: float) -> str | None:
    """Of packs at one level throughout, the smallest that keeps the budget."""
    fitting = [name for name, row in rows.items() if row.worst_db >= budget_db]
    return min(fitting, key=lambda name: rows[name].bytes, default=None)
