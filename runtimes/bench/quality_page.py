"""The quality benchmark as a Markdown page, as JSON and as a plot, without dates or paths: equal runs are equal."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby

from ...core.degradations.fixed import CLEAN
from ...core.limits import FEWEST_PHOTOS
from ...core.markdown import Panel, Point, scatter, table
from ...core.metrics.baselines import NULLS, PairedDifference
from ...core.timing import instruction_sets, processor
from .methods import BM3D, DTPM, NLM, bm3d_version, opencv_version
from .quality import BETTER, CAP, Gate, Measurement, QualityResults, compared, mean
from .trials import REAL_NOISE, BenchPhoto

__all__ = ["QualityReport", "RunFacts", "describe", "machine", "quality_speed_plot", "versions"]

TABLE_DECIMALS = {"PSNR": 2, "SSIM": 4, "HaarPSI": 4, "NIQE": 2, "SWD": 4, "LPIPS": 4}
MEAN = "mean of damages"
ALL = "all synthetic"
PLOTTED = {"PSNR": "PSNR, dB", "HaarPSI": "HaarPSI", "SWD": "SWD"}  # metric -> title of its axis
SERIES = ("ours", "networks of others", "classical")

INTRODUCTION = """\
# The embedded pack: results of `cleanup`

Made by `{command}`; do not edit.

- Model: pack `{pack}`, {steps} steps, strength 1, seed 0; SHA-256 of its manifest `{manifest_sha256}`
- Machine: {machine}
- Versions: {versions}
- Photos: {photos}. Every method gets the same 8-bit damaged photos; results are rounded to 8 bits.
- Damage: Gaussian noise of sigma 15, 25, 50 grey levels (clipped to 8 bits); correlated: noise that was blurred by
  0.7 pixel and brought back to sigma 15; JPEG of quality 10, 20, 40 with 4:2:0 colour; mixed: a frozen training mix of
  the task `mixed-v1`, strength drawn per photo; clean: none; PolyU: real camera noise, the truth is the mean of many
  shots.
- Baselines are tuned for each damage by PSNR on {validation} (PolyU: on other pairs of it): fastNlMeans in
  strength and both window sizes, BM3D in sigma; for plain noise BM3D gets the true one. Networks run with their
  authors' weights.
- PSNR (dB; {cap:g} for an identical photo), SSIM, HaarPSI: higher is better. NIQE, SWD (and LPIPS): lower is better.
  PSNR and SSIM reward smooth results; NIQE asks whether a photo looks natural at all, SWD whether it has the texture
  of the true one. "{mean}": each damage counts the same, `clean` is left out."""

NULL_INTRODUCTION = f"""\
Two cheap ways to add texture to the predictor's result, each with the one gain per damage at which its mean PSNR is
that of {DTPM}: an unsharp mask (gain x the finest Laplacian band) and grey noise as strong as that band is there. The
cells: {DTPM} minus the null opponent, mean over the photos and its 95 % interval (paired bootstrap). "better" or
"worse" only where the interval excludes zero, from {FEWEST_PHOTOS} photos on. "{ALL}": the mean over all damage \
but `{CLEAN}`
and `{REAL_NOISE}`."""

PLOT = """\
![Megapixels per second on one core against PSNR, HaarPSI and SWD]({})

The rows "{mean}" of the next table against the CPU time of one thread, for methods that restored every photo."""


@dataclass(frozen=True)
class RunFacts:
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
    """The processor and what it can do, without the name of the computer."""
    known = f" ({sets})" if (sets := instruction_sets()) else ""
    return f"{processor()}{known}; {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def versions() -> str:
    """The versions of all that the numbers depend on."""
    ours = [f"{package} {version(package)}" for package in ("pocketprior", "numpy", "onnxruntime", "pillow")]
    return ", ".join([*ours, f"OpenCV {opencv_version()}", f"bm3d {bm3d_version()}"])


def describe(photos: Sequence[BenchPhoto]) -> str:
    """'24 of bsd100, 18 of mcmaster'."""
    groups = groupby(photos, key=lambda photo: photo.name.rpartition("/")[0])
    return ", ".join(f"{len(list(group))} of {name}" for name, group in groups)


@dataclass(frozen=True)
class QualityReport:
    """A run and what it found."""

    facts: RunFacts
    results: QualityResults
    gates: Sequence[Gate]
    plot: str = ""  # name of the quality-speed plot next to the page, "" for none

    def as_markdown(self) -> str:
        """The page: the facts, the gates, the tables, the null opponents, the settings of the baselines."""
        measurements = self.results.measurements
        seen_by_bm3d = {m.photo for m in measurements if m.method == BM3D}
        all_photos = [m for m in measurements if m.method != BM3D]
        with_bm3d = [m for m in measurements if m.photo in seen_by_bm3d and m.method not in NULLS]
        parts = [INTRODUCTION.format(**asdict(self.facts), cap=CAP, mean=MEAN)]
        parts += ["## Gates", "\n".join(f"- {gate}" for gate in self.gates)] if self.gates else []
        parts += ["## Quality and speed", PLOT.format(self.plot, mean=MEAN)] if self.plot else []
        parts += ["## All photos", _table(all_photos)]
        parts += ["## Null opponents", NULL_INTRODUCTION, _null_table(self.results)] if self.results.gains else []
        parts += [f"## With BM3D: {_names(seen_by_bm3d)}", _table(with_bm3d)] if with_bm3d else []
        tuned = _settings(self.results)
        return "\n\n".join([*parts, *(["## Settings of the baselines", tuned] if tuned else [])]) + "\n"

    def as_json(self) -> str:
        """Facts, gates and every single measurement; a number that is not finite becomes null."""
        rows = [asdict(m) | {"values": {k: _finite(v) for k, v in m.values.items()}} for m in self.results.measurements]
        tree = asdict(self.facts) | {"gates": [asdict(gate) for gate in self.gates], "measurements": rows}
        return json.dumps(tree | {"gains": self.results.gains}, indent=2, allow_nan=False)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _names(photos: Collection[str]) -> str:
    return f"{len(photos)} photos ({', '.join(sorted(photos))})"


def _table(measurements: Sequence[Measurement]) -> str:
    columns = list(measurements[0].values)
    damages = list(dict.fromkeys(m.damage for m in measurements))
    methods = list(dict.fromkeys(m.method for m in measurements))
    known = {(m.damage, m.method) for m in measurements}
    rows = [["damage", "method", *columns]]
    for damage in damages:
        for method in (name for name in methods if (damage, name) in known):
            rows.append([damage, method, *(_value(measurements, c, method, [damage]) for c in columns)])
    damaged = [damage for damage in damages if damage != CLEAN]
    for method in methods if len(damaged) > 1 else []:
        if all((damage, method) in known for damage in damaged):
            rows.append([MEAN, method, *(_value(measurements, c, method, damaged) for c in columns)])
    return table(rows, left=2)


def _value(measurements: Sequence[Measurement], metric: str, method: str, damages: Collection[str]) -> str:
    return f"{mean(measurements, metric, method, damages):.{TABLE_DECIMALS[metric]}f}"


def _null_table(results: QualityResults) -> str:
    metrics = [name for name in ("PSNR", "HaarPSI", "NIQE", "SWD") if name in results.measurements[0].values]
    rows = [["damage", "null opponent", "gain", *metrics]]
    for damage, gains in results.gains.items():
        for name, gain in gains.items():
            rows.append([damage, name, f"{gain:.2f}", *_differences(results, name, [damage], metrics)])
    synthetic = [damage for damage in results.gains if damage not in (CLEAN, REAL_NOISE)]
    if len(synthetic) > 1:
        rows += [[ALL, name, "", *_differences(results, name, synthetic, metrics)] for name in NULLS]
    return table(rows, left=2)


def _differences(results: QualityResults, null: str, damages: Collection[str], metrics: Sequence[str]) -> list[str]:
    return [_verdict(metric, compared(results.measurements, metric, DTPM, null, damages)) for metric in metrics]


def _verdict(metric: str, found: PairedDifference) -> str:
    digits = TABLE_DECIMALS[metric]
    numbers = f"{found.mean:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"
    # The gain was chosen so that PSNR is equal: what is left there is no verdict.
    if metric == "PSNR" or not found.shown:
        return numbers
    return f"{numbers} {'better' if found.mean * BETTER[metric] > 0 else 'worse'}"


def _settings(results: QualityResults) -> str:
    tuned = [[damage, m.name, m.settings] for damage, methods in results.methods.items() for m in methods if m.settings]
    return table([["damage", "method", "settings"], *tuned], left=3) if tuned else ""


def quality_speed_plot(results: QualityResults, rates: Mapping[str, float], networks: Collection[str]) -> str:
    """One panel per metric, as SVG: the mean over damages, for methods that restored every photo of every damage.

    Args:
        results: What was measured; undamaged photos count only where there is nothing else.
        rates: Megapixels per second by the name of a method.
        networks: The names of networks of others.
    """
    damaged = [m for m in results.measurements if m.damage != CLEAN] or results.measurements
    everything = {(m.damage, m.photo) for m in damaged}
    names = [name for name in rates if {(m.damage, m.photo) for m in damaged if m.method == name} == everything]
    names.sort(key=lambda name: SERIES.index(_series(name, networks)))
    damages = {m.damage for m in damaged}
    panels = [
        Panel(
            f"{metric}, {'higher' if BETTER[metric] > 0 else 'lower'} is better",
            title,
            [Point(n, rates[n], mean(damaged, metric, n, damages), _series(n, networks)) for n in names],
        )
        for metric, title in PLOTTED.items()
        if metric in damaged[0].values
    ]
    return scatter(panels, "megapixels per second on one core")


def _series(name: str, networks: Collection[str]) -> str:
    return SERIES[2] if name in (NLM, BM3D) else SERIES[1] if name in networks else SERIES[0]
