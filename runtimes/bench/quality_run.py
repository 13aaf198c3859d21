"""One run of the quality benchmark, from its options to its report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ...core.arguments import NamedPath
from ...core.degradations.fixed import DAMAGES, damages_named
from ...core.errors import UnknownNameError, UsageError
from ...core.files import write_text
from ...core.pack.manifest import FILE, Manifest
from ...core.pack.store import default_pack
from ...core.restore.restorer import Restorer
from . import trials as bench_photos
from .baseline import method_for, opened
from .methods import DTPM, BenchMethod, ResultCache, bm3d_method, nl_means_method, our_methods
from .quality import Judge, gates, run
from .quality_page import QualityReport, describe, machine, quality_speed_plot, versions
from .speed import rates
from .trials import REAL_NOISE, BenchPhoto, Trial, evenly

__all__ = ["QualityOptions", "measure_quality"]


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

    Raises:
        UsageError: Options do not fit together.
        UnknownNameError: A kind of damage that does not exist.
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

    results = run(_trials(options, photos, validation, damages), methods_for, judge, len(damages))
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


def _trials(
    options: QualityOptions, photos: Sequence[BenchPhoto], validation: Sequence[BenchPhoto], damages: Sequence[str]
) -> Iterator[Trial]:
    made = bench_photos.trials(photos, validation, damages_named(name for name in damages if name != REAL_NOISE))
    if options.data is None or REAL_NOISE not in damages:
        return made
    return chain(made, [bench_photos.real_trial(options.data, options.limit)])


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
