"""One run of the quality benchmark, from its options to its report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ...core.degradations.fixed import DAMAGES, damages_named
from ...core.errors import UnknownNameError, UsageError
from ...core.files import write_text
from ...core.pack.manifest import FILE, Manifest
from ...core.pack.store import default_pack
from ...core.restore.restorer import Restorer
from . import photos as bench_photos
from .baseline import Network, method_for, opened
from .cache import Cache
from .gates import gates
from .judge import Judge
from .methods import DTPM, Method, bm3d, nl_means, our_methods
from .named import Named
from .photos import REAL, BenchPhoto, Trial, evenly
from .plot import quality_speed_plot, speeds
from .quality import run
from .report import Facts, Report, describe, machine, versions

__all__ = ["QualityRun"]


@dataclass(frozen=True)
class QualityRun:
    """The options of `pocketprior bench quality`, as its help explains them."""

    pack: Path | None
    data: Path | None
    photos: Path | None
    limit: int | None
    damages: Sequence[str]
    baselines: Sequence[Named]
    variants: Sequence[Named]
    bm3d: int
    quick: bool
    lpips: Path | None
    cache: Path
    plot: Path | None
    runtime: str
    arithmetic: str | None

    def report(self) -> Report:
        """Measure everything and write the plot, where one is wanted. Raises UsageError for options that do not fit."""
        self._check_names()
        judge = Judge.open(Cache(self.cache), self.lpips, quick=self.quick)
        folder = self.pack or default_pack()
        ours = our_methods(Restorer.from_pack(folder, self.runtime, threads=1, arithmetic=self.arithmetic))
        for variant in self.variants:
            restorer = Restorer.from_pack(variant.path, variant.value or self.runtime, threads=1)
            ours += our_methods(restorer, variant.name)
        networks = [opened(given) for given in self.baselines]
        photos, validation = self._photos()
        chosen = self._damages()
        trials = self._trials(photos, validation, chosen)
        results = run(trials, self._methods_for(photos, networks, ours, judge.cache), judge, len(chosen))
        if self.plot is not None:
            named = {network.name for network in networks}
            first = next(iter(results.methods.values()))
            write_text(self.plot, quality_speed_plot(results, speeds(_everywhere(first)), named))
        facts = self._facts(folder, Manifest.load(folder), photos)
        return Report(facts, results, gates(results.measurements), self.plot.name if self.plot else "")

    def _check_names(self) -> None:
        names = [given.name for given in (*self.baselines, *self.variants)]
        twice = next((name for name in names if names.count(name) > 1 or name == DTPM), None)
        if twice is not None:
            raise UsageError(f"the name '{twice}' stands for two methods; give each its own")

    def _damages(self) -> list[str]:
        """Names of the kinds of damage, that of real pairs last."""
        real = [REAL] if self.data is not None and bench_photos.has_real(self.data) else []
        known = [*(damage.name for damage in DAMAGES), *real]
        for name in self.damages:
            if name not in known:
                raise UnknownNameError("damage", name, known)
        return [name for name in known if not self.damages or name in self.damages]

    def _photos(self) -> tuple[list[BenchPhoto], list[BenchPhoto]]:
        """The photos to measure on and those to tune baselines on."""
        if self.photos is not None:
            photos = bench_photos.load(evenly(bench_photos.in_folder(self.photos), self.limit))
            return photos, photos
        assert self.data is not None
        paths = evenly(bench_photos.bench_set(self.data), self.limit)
        return bench_photos.load(paths), bench_photos.load(bench_photos.validation_set(self.data))

    def _trials(
        self, photos: Sequence[BenchPhoto], validation: Sequence[BenchPhoto], chosen: Sequence[str]
    ) -> Iterator[Trial]:
        made = bench_photos.trials(photos, validation, damages_named(name for name in chosen if name != REAL))
        if REAL not in chosen:
            return made
        assert self.data is not None
        return chain(made, [bench_photos.real_trial(self.data, self.limit)])

    def _methods_for(
        self, photos: Sequence[BenchPhoto], networks: Sequence[Network], ours: Sequence[Method], cache: Cache
    ) -> Callable[[Trial], list[Method]]:
        with_bm3d = {photo.name for photo in evenly(photos, 0 if self.quick else self.bm3d)}

        def methods_for(trial: Trial) -> list[Method]:
            classical = [] if self.quick else [nl_means(trial, cache)]
            if with_bm3d and trial.damage != REAL:
                classical.append(bm3d(trial, cache, with_bm3d))
            others = [method_for(network, trial, cache) for network in networks]
            return [*classical, *(method for method in others if method is not None), *ours]

        return methods_for

    def _facts(self, folder: Path, manifest: Manifest, photos: Sequence[BenchPhoto]) -> Facts:
        return Facts(
            command=self._command(),
            pack=manifest.name,
            steps=len(manifest.times),
            manifest_sha256=hashlib.sha256((folder / FILE).read_bytes()).hexdigest(),
            machine=machine(),
            versions=versions(),
            photos=describe(photos),
            validation="validation photos of the data" if self.photos is None else "these same photos",
        )

    def _command(self) -> str:
        """The call, with words in place of folders."""
        words = ["pocketprior bench quality", *(["PACK"] if self.pack else [])]
        words.append("--data DATA" if self.photos is None else "--photos PHOTOS")
        words += [f"--limit {self.limit}"] if self.limit else []
        words += [f'--damages "{",".join(self.damages)}"'] if self.damages else []
        for option, given in (
            *(("baseline:sigma", b) for b in self.baselines),
            *(("variant:runtime", v) for v in self.variants),
        ):
            name, _, key = option.partition(":")
            words.append(f'--{name} "{given.name}={given.path.name}{f":{key}={given.value}" if given.value else ""}"')
        words += [f"--runtime {self.runtime}"] if self.runtime != "onnxruntime" else []
        words += [f"--arithmetic {self.arithmetic}"] if self.arithmetic else []
        words += ["--quick"] if self.quick else [f"--bm3d {self.bm3d}"]
        return " ".join([*words, *([f"--plot {self.plot.name}"] if self.plot else [])])


def _everywhere(methods: Sequence[Method]) -> list[Method]:
    """Those that restore every photo: the others have no place in a plot."""
    return [method for method in methods if method.only is None]
