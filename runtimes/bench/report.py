"""The quality benchmark as a page of Markdown, and as JSON; without dates or paths, so that a repeated run is equal."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from ...core.markdown import table
from .gates import Gate
from .photos import DAMAGES, BenchPhoto
from .quality import BM3D, DTPM, INPUT, NLM, PREDICTOR, Measurement, Method, mean
from .rivals import bm3d_version, opencv_version

__all__ = ["Facts", "Report", "describe", "machine", "versions"]

METHODS = (INPUT, NLM, BM3D, PREDICTOR, DTPM)
DECIMALS = {"PSNR": 2, "SSIM": 4, "HaarPSI": 4, "NIQE": 2, "SWD": 4, "LPIPS": 4}
MEAN = "mean of all"

INTRODUCTION = """\
# The embedded pack: results of `cleanup`

Made by `{command}`; do not edit.

- Model: pack `{pack}`, {steps} steps, strength 1, seed 0; SHA-256 of its manifest `{manifest_sha256}`
- Machine: {machine}
- Versions: {versions}
- Photos: {photos}. Every method gets the same 8-bit damaged photos; results are rounded to 8 bits.
- Damage: Gaussian noise of sigma 15, 25, 50 grey levels (clipped to 8 bits); JPEG of quality 10, 20, 40 with 4:2:0
  colour; mixed: the training mix of the task `cleanup`, strength drawn per photo.
- Rivals are tuned for each damage by PSNR on {validation}:
  fastNlMeans in strength and both window sizes, BM3D in sigma; for plain noise BM3D is told the true one.
- PSNR (dB), SSIM, HaarPSI: higher is better. NIQE, SWD (and LPIPS): lower is better. PSNR and SSIM reward smooth
  results; NIQE asks whether a photo looks natural at all, SWD whether it has the texture of the true one."""


@dataclass(frozen=True)
class Facts:
    """What a reader must know about a run."""

    command: str
    pack: str
    steps: int
    manifest_sha256: str
    machine: str
    versions: str
    photos: str
    validation: str


def machine() -> str:
    """The processor, without the name of the computer."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def versions() -> str:
    """Of all that the numbers depend on."""
    ours = [f"{package} {version(package)}" for package in ("pocketprior", "numpy", "onnxruntime", "pillow")]
    return ", ".join([*ours, f"OpenCV {opencv_version()}", f"bm3d {bm3d_version()}"])


def describe(photos: Sequence[BenchPhoto]) -> str:
    """'24 of bsd100, 18 of mcmaster'."""
    groups = groupby(photos, key=lambda photo: photo.name.rpartition("/")[0])
    return ", ".join(f"{len(list(group))} of {name}" for name, group in groups)


@dataclass(frozen=True)
class Report:
    """A run and what it found; `rivals`: damage -> the rivals as they were tuned for it."""

    facts: Facts
    measurements: Sequence[Measurement]
    gates: Sequence[Gate]
    rivals: Mapping[str, Sequence[Method]]

    def as_markdown(self) -> str:
        """The page: the facts, the gates, the tables, the settings of the rivals."""
        seen_by_bm3d = {m.photo for m in self.measurements if m.method == BM3D}
        all_photos = [m for m in self.measurements if m.method != BM3D]
        with_bm3d = [m for m in self.measurements if m.photo in seen_by_bm3d]
        parts = [INTRODUCTION.format(**asdict(self.facts)), "## Gates", "\n".join(f"- {gate}" for gate in self.gates)]
        parts += ["## All photos", _table(all_photos)]
        parts += [f"## With BM3D: {_names(seen_by_bm3d)}", _table(with_bm3d)] if with_bm3d else []
        return "\n\n".join([*parts, "## Settings of the rivals", _settings(self.rivals)]) + "\n"

    def as_json(self) -> str:
        """Facts, gates and every single measurement; an infinite PSNR becomes null."""
        rows = [asdict(m) | {"values": {k: _finite(v) for k, v in m.values.items()}} for m in self.measurements]
        tree = asdict(self.facts) | {"gates": [asdict(gate) for gate in self.gates], "measurements": rows}
        return json.dumps(tree, indent=2, allow_nan=False)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _names(photos: Collection[str]) -> str:
    return f"{len(photos)} photos ({', '.join(sorted(photos))})"


def _table(measurements: Sequence[Measurement]) -> str:
    columns = list(measurements[0].values)
    present = {m.method for m in measurements}
    rows = [["damage", "method", *columns]]
    for damage in (*(d.name for d in DAMAGES), MEAN):
        chosen = None if damage == MEAN else [damage]
        for method in (name for name in METHODS if name in present):
            values = [f"{mean(measurements, c, method, chosen):.{DECIMALS[c]}f}" for c in columns]
            rows.append([damage, method, *values])
    return table(rows, left=2)


def _settings(methods: Mapping[str, Sequence[Method]]) -> str:
    tuned = [(damage, method) for damage, group in methods.items() for method in group if method.settings]
    return table([["damage", "method", "settings"], *([d, m.name, m.settings] for d, m in tuned)], left=3)
