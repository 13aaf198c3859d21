"""One run of the quality benchmark, from its options to its report: a Markdown page, JSON and a plot.

They have no dates or paths: equal runs are equal.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from pathlib import Path

from ...core.arguments import NamedPath
from ...core.degradations.fixed import CLEAN, DAMAGES, damages_named
from ...core.errors import UnknownNameError, UsageError
from ...core.files import write_text
from ...core.limits import FEWEST_PHOTOS
from ...core.markdown import Panel, Point, scatter, table
from ...core.metrics.baselines import NULLS, PairedDifference
from ...core.pack.manifest import FILE, Manifest
from ...core.pack.store import default_pack
from ...core.restore.restorer import Restorer
from ...core.timing import instruction_sets, processor
from . import trials as bench_photos
from .baseline import method_for, opened
from .methods import BM3D, DTPM, NLM, BenchMethod, ResultCache, bm3d_method, nl_means_method, our_methods, versions
from .quality import BETTER, CAP, Gate, Judge, Measurement, QualityResults, compared, gates, mean, run
from .speed import rates
from .trials import REAL_NOISE, BenchPhoto, Trial, evenly

__all__ = ["QualityOptions", "QualityReport", "describe", "machine", "measure_quality", "quality_speed_plot"]

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


def machine() -> str:
    """The processor and what it can do, without the name of the computer."""
    known = f" ({sets})" if (sets := instruction_sets()) else ""
    return f"{processor()}{known}; {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def describe(photos: Sequence[BenchPhoto]) -> str:
    """'24 of bsd100, 18 of mcmaster'."""
    groups = groupby(photos, key=lambda photo: photo.name.rpartition("/")[0])
    return ", ".join(f"{len(list(group))} of {name}" for name, group in groups)


@dataclass(frozen=True)
class QualityReport:
    """A run and what it found."""

    facts: Mapping[str, str | int]  # what a reader must know about the run: the fields of INTRODUCTION
    results: QualityResults
    gates: Sequence[Gate]
    plot: str = ""  # name of the quality-speed plot next to the page, "" for none

    def as_markdown(self) -> str:
        """The page: the facts, the gates, the tables, the null opponents, the settings of the baselines."""
        measurements = self.results.measurements
        seen_by_bm3d = {m.photo for m in measurements if m.method == BM3D}
        all_photos = [m for m in measurements if m.method != BM3D]
        with_bm3d = [m for m in measurements if m.photo in seen_by_bm3d and m.method not in NULLS]
        parts = [INTRODUCTION.format(**self.facts, cap=CAP, mean=MEAN)]
        parts += ["## Gates", "\n".join(f"- {gate}" for gate in self.gates)] if self.gates else []
        parts += ["## Quality and speed", PLOT.format(self.plot, mean=MEAN)] if self.plot else []
        parts += ["## All photos", _table(all_photos)]
        parts += ["## Null opponents", NULL_INTRODUCTION, _null_table(self.results)] if self.results.gains else []
        if with_bm3d:
            names = f"{len(seen_by_bm3d)} photos ({', '.join(sorted(seen_by_bm3d))})"
            parts += [f"## With BM3D: {names}", _table(with_bm3d)]
        tuned = [
            [damage, m.name, m.settings] for damage, some in self.results.methods.items() for m in some if m.settings
        ]
        if tuned:
            parts += ["## Settings of the baselines", table([["damage", "method", "settings"], *tuned], left=3)]
        return "\n\n".join(parts) + "\n"

    def as_json(self) -> str:
        """Facts, gates and every single measurement; a number that is not finite becomes null."""
        rows = [
            asdict(m) | {"values": {name: value if math.isfinite(value) else None for name, value in m.values.items()}}
            for m in self.results.measurements
        ]
        gates = [asdict(gate) for gate in self.gates]
        tree = {**self.facts, "gates": gates, "measurements": rows, "gains": self.results.gains}
        return json.dumps(tree, indent=2, allow_nan=False)


def _table(measurements: Sequence[Measurement]) -> str:
    columns = list(measurements[0].values)
    damages = list(dict.fromkeys(m.damage for m in measurements))
    methods = list(dict.fromkeys(m.method for m in measurements))
    known = {(m.damage, m.method) for m in measurements}
    damaged = [damage for damage in damages if damage != CLEAN]
    averaged = [(MEAN, damaged)] if len(damaged) > 1 else []
    rows = [["damage", "method", *columns]]
    for head, some in [*((damage, [damage]) for damage in damages), *averaged]:
        for method in (name for name in methods if all((damage, name) in known for damage in some)):
            means = ((mean(measurements, metric, method, some), TABLE_DECIMALS[metric]) for metric in columns)
            rows.append([head, method, *(f"{value:.{digits}f}" for value, digits in means)])
    return table(rows, left=2)


def _null_table(results: QualityResults) -> str:
    metrics = [name for name in ("PSNR", "HaarPSI", "NIQE", "SWD") if name in results.measurements[0].values]
    rows = [["damage", "null opponent", "gain", *metrics]]
    synthetic = [damage for damage in results.gains if damage not in (CLEAN, REAL_NOISE)]
    heads = [(d, name, f"{gain:.2f}", [d]) for d, gains in results.gains.items() for name, gain in gains.items()]
    heads += [(ALL, name, "", synthetic) for name in NULLS if len(synthetic) > 1]
    for *head, damages in heads:
        found = (compared(results.measurements, metric, DTPM, head[1], damages) for metric in metrics)
        rows.append([*head, *map(_verdict, metrics, found)])
    return table(rows, left=2)


def _verdict(metric: str, found: PairedDifference) -> str:
    digits = TABLE_DECIMALS[metric]
    numbers = f"{found.mean:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"
    # The gain was chosen so that PSNR is equal: what is left there is no verdict.
    if metric == "PSNR" or not found.shown:
        return numbers
    return f"{numbers} {'better' if found.mean * BETTER[metric] > 0 else 'worse'}"


def quality_speed_plot(results: QualityResults, speeds: Mapping[str, float], networks: Collection[str]) -> str:
    """One panel per metric, as SVG: the mean over damages, for methods that restored every photo of every damage.

    Undamaged photos count only where there is nothing else. speeds: Megapixels per second by the name of a method.
    """
    damaged = [m for m in results.measurements if m.damage != CLEAN] or results.measurements
    everything = {(m.damage, m.photo) for m in damaged}
    names = [name for name in speeds if {(m.damage, m.photo) for m in damaged if m.method == name} == everything]
    names.sort(key=lambda name: SERIES.index(_series(name, networks)))
    damages = {m.damage for m in damaged}
    panels = [
        Panel(
            f"{metric}, {'higher' if BETTER[metric] > 0 else 'lower'} is better",
            title,
            [Point(n, speeds[n], mean(damaged, metric, n, damages), _series(n, networks)) for n in names],
        )
        for metric, title in PLOTTED.items()
        if metric in damaged[0].values
    ]
    return scatter(panels, "megapixels per second on one core")


def _series(name: str, networks: Collection[str]) -> str:
    return SERIES[2] if name in (NLM, BM3D) else SERIES[1] if name in networks else SERIES[0]


@dataclass(frozen=True)
class QualityOptions:
    """The options of `pocketprior bench quality`; one of `data` and `photos` is needed."""

    pack: Path | None = None  # folder; None for the embedded pack
    data: Path | None = None  # a data folder with a manifest.csv
    photos: Path | None = None  # a folder of clean photos
    limit: int | None = None  # measure at most this many of the photos
    damages: Sequence[str] = ()  # only these kinds of damage
    baselines: Sequence[NamedPath] = ()  # networks of others, as ONNX files
    variants: Sequence[NamedPath] = ()  # further packs
    bm3d: int = 6  # photos that BM3D is run on
    quick: bool = False  # no classical methods, few metrics
    lpips: Path | None = None  # weights of LPIPS
    cache: Path = Path(".cache/bench")
    plot: Path | None = None  # where to write the quality-speed plot
    runtime: str = "onnxruntime"
    arithmetic: str | None = None


def measure_quality(options: QualityOptions) -> QualityReport:
    """Restore, measure and judge; write the plot where `options.plot` names a file.

    Raises UsageError for options that do not fit together, UnknownNameError for a damage that does not exist.
    """
    _check_names(options)
    judge = Judge.open(ResultCache(options.cache), options.lpips, quick=options.quick)
    folder = options.pack or default_pack()
    ours = our_methods(Restorer.from_pack(folder, options.runtime, threads=1, arithmetic=options.arithmetic))
    for variant in options.variants:
        restorer = Restorer.from_pack(variant.path, variant.value or options.runtime, threads=1)
        ours += our_methods(restorer, variant.name)
    networks = [opened(given) for given in options.baselines]
    photos, validation = _photos(options)
    damages = _damages(options)
    with_bm3d = {photo.name for photo in evenly(photos, 0 if options.quick else options.bm3d)}

    def methods_for(trial: Trial) -> list[BenchMethod]:
        classical = [] if options.quick else [nl_means_method(trial, judge.cache)]
        if with_bm3d and trial.damage != REAL_NOISE:
            classical.append(bm3d_method(trial, judge.cache, with_bm3d))
        others = [method_for(network, trial, judge.cache) for network in networks]
        return [*classical, *filter(None, others), *ours]

    synthetic = damages_named(damage for damage in damages if damage != REAL_NOISE)
    real = [bench_photos.real_trial(options.data, options.limit)] if options.data and REAL_NOISE in damages else []
    trials = chain(bench_photos.trials(photos, validation, synthetic), real)
    results = run(trials, methods_for, judge, len(damages))
    if options.plot is not None:
        first = next(iter(results.methods.values()))
        speeds = rates([method for method in first if method.only is None])
        write_text(options.plot, quality_speed_plot(results, speeds, {network.name for network in networks}))
    facts = _facts(options, folder, photos)
    return QualityReport(facts, results, gates(results.measurements), options.plot.name if options.plot else "")


def _check_names(options: QualityOptions) -> None:
    names = [given.name for given in (*options.baselines, *options.variants)]
    twice = next((name for name in names if names.count(name) > 1 or name == DTPM), None)
    if twice is not None:
        raise UsageError(f"the name '{twice}' stands for two methods; give each its own")


def _damages(options: QualityOptions) -> list[str]:
    """Names of the kinds of damage, that of real pairs last."""
    real = [REAL_NOISE] if options.data is not None and bench_photos.has_real(options.data) else []
    known = [*(damage.name for damage in DAMAGES), *real]
    for name in options.damages:
        if name not in known:
            raise UnknownNameError("damage", name, known)
    return [name for name in known if not options.damages or name in options.damages]


def _photos(options: QualityOptions) -> tuple[list[BenchPhoto], list[BenchPhoto]]:
    """The photos to measure on and those to tune baselines on."""
    if options.photos is not None:
        photos = list(map(bench_photos.load, evenly(bench_photos.in_folder(options.photos), options.limit)))
        return photos, photos
    if options.data is None:
        raise UsageError("there is nothing to measure on; give --data or --photos")
    paths = evenly(bench_photos.bench_set(options.data), options.limit), bench_photos.validation_set(options.data)
    photos, validation = ([bench_photos.load(path) for path in some] for some in paths)
    return photos, validation


def _facts(options: QualityOptions, folder: Path, photos: Sequence[BenchPhoto]) -> dict[str, str | int]:
    manifest = Manifest.load(folder)
    return {
        "command": _command(options),
        "pack": manifest.name,
        "steps": len(manifest.times),
        "manifest_sha256": hashlib.sha256((folder / FILE).read_bytes()).hexdigest(),
        "machine": machine(),
        "versions": versions(),
        "photos": describe(photos),
        "validation": "validation photos of the data" if options.photos is None else "these same photos",
    }


def _command(options: QualityOptions) -> str:
    """The call, with words in place of folders."""
    words = ["pocketprior bench quality", *(["PACK"] if options.pack else [])]
    words.append("--data DATA" if options.photos is None else "--photos PHOTOS")
    words += [f"--limit {options.limit}"] if options.limit else []
    words += [f'--damages "{",".join(options.damages)}"'] if options.damages else []
    named = [("baseline", "sigma", given) for given in options.baselines]
    named += [("variant", "runtime", given) for given in options.variants]
    for option, key, given in named:
        value = f":{key}={given.value}" if given.value else ""
        words.append(f'--{option} "{given.name}={given.path.name}{value}"')
    words += [f"--runtime {options.runtime}"] if options.runtime != "onnxruntime" else []
    words += [f"--arithmetic {options.arithmetic}"] if options.arithmetic else []
    words += ["--quick"] if options.quick else [f"--bm3d {options.bm3d}"]
    return " ".join([*words, *([f"--plot {options.plot.name}"] if options.plot else [])])
