"""Restore the same damaged photos with every method, measure what comes out, and judge it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from ...core import metrics
from ...core.arrays import Image
from ...core.degradations.fixed import CLEAN, DAMAGES, image_digest
from ...core.metrics import read_lpips_weights
from ...core.metrics.baselines import NULLS, PairedDifference, null_result, paired
from ..limits import NLM_GATE, TEXTURE_GATES, GateLimit
from .methods import DTPM, INPUT, NLM, PREDICTOR, BenchMethod
from .trials import Trial
from .tuning import ResultCache

__all__ = ["Gate", "Judge", "Measurement", "QualityResults", "capped_psnr", "compared", "gates", "mean", "run"]

ImageMetric = Callable[[Image, Image], float]  # of the restored and the true photo

CAP = 60.0  # dB: what an identical image has in the tables, so that every mean is a number
QUICK = ("PSNR", "HaarPSI", "SWD")
BETTER = {"PSNR": 1, "SSIM": 1, "HaarPSI": 1, "NIQE": -1, "SWD": -1, "LPIPS": -1}  # 1: higher, -1: lower is better


@dataclass(frozen=True)
class Judge:
    """Measures restored photos, each pair of images once."""

    cache: ResultCache
    metrics: Mapping[str, ImageMetric]  # each takes the restored and the true photo
    made_of: str  # hash of the code and data of the metrics

    @classmethod
    def open(cls, cache: ResultCache, lpips: Path | None = None, *, quick: bool = False) -> Judge:
        """The metrics of the tables.

        Args:
            cache: Keeps the results.
            lpips: Weights of LPIPS, which is left out without them; UsageError for a file of something else.
            quick: Only the metrics of QUICK.
        """
        table: dict[str, ImageMetric] = {
            "PSNR": capped_psnr,
            "SSIM": metrics.ssim,
            "HaarPSI": metrics.haarpsi,
            "NIQE": lambda restored, _: metrics.niqe(restored),
            "SWD": metrics.swd,
        }
        if quick:
            table = {name: table[name] for name in QUICK}
        if lpips is not None:
            table["LPIPS"] = partial(metrics.lpips, weights=read_lpips_weights(lpips))
        return cls(cache, table, _made_of(lpips))

    def __call__(self, restored: Image, true: Image) -> dict[str, float]:
        """Every metric of one restored photo."""
        key = f"{' '.join(self.metrics)} {self.made_of} {image_digest(restored)} {image_digest(true)}"
        return self.cache.numbers(key, lambda: {name: metric(restored, true) for name, metric in self.metrics.items()})


def capped_psnr(restored: Image, true: Image) -> float:
    """PSNR in dB, at most CAP: that of identical images would be infinite."""
    return min(CAP, metrics.psnr(restored, true))


def _made_of(lpips: Path | None) -> str:
    folder = Path(str(metrics.__file__)).parent
    files = sorted(path for path in folder.iterdir() if path.suffix in (".py", ".npz"))
    content = b"".join(path.read_bytes() for path in [Path(__file__), *files, *([lpips] if lpips else [])])
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Measurement:
    """What one method made of one damaged photo."""

    photo: str
    damage: str
    method: str
    values: Mapping[str, float]  # by metric


@dataclass(frozen=True)
class QualityResults:
    """Every measurement; by damage the methods with their settings, and the gains of the null opponents."""

    measurements: list[Measurement] = field(default_factory=list[Measurement])
    methods: dict[str, Sequence[BenchMethod]] = field(default_factory=dict[str, Sequence[BenchMethod]])
    gains: dict[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])


def run(
    trials: Iterable[Trial],
    methods_for: Callable[[Trial], Sequence[BenchMethod]],
    judge: Judge,
    count: int | None = None,
) -> QualityResults:
    """Run every trial with its methods, and with the null opponents of our whole model where it is among them.

    Args:
        trials: What is restored.
        methods_for: The methods for a trial.
        judge: Measures the results.
        count: How many trials there are, for the progress bar.
    """
    results = QualityResults()
    for trial in tqdm(trials, desc="restoring and measuring", unit="damage", total=count, disable=None):
        methods = methods_for(trial)
        results.methods[trial.damage] = methods
        images = {INPUT: [pair.damaged for pair in trial.pairs]}
        results.measurements.extend(_judged(trial, INPUT, images[INPUT], judge))
        for method in methods:
            made = [
                _restored(method, pair.damaged, judge.cache)
                if method.only is None or pair.name in method.only
                else None
                for pair in trial.pairs
            ]
            results.measurements.extend(_judged(trial, method.name, made, judge))
            if method.name in (PREDICTOR, DTPM):
                images[method.name] = [image for image in made if image is not None]
        if {PREDICTOR, DTPM} <= set(images):
            results.gains[trial.damage] = gains = {}
            for name, gain, made in _nulls(trial, images[PREDICTOR], images[DTPM]):
                gains[name] = gain
                results.measurements.extend(_judged(trial, name, made, judge))
    return results


def _judged(trial: Trial, method: str, images: Sequence[Image | None], judge: Judge) -> Iterator[Measurement]:
    for pair, image in zip(trial.pairs, images, strict=True):
        if image is not None:
            yield Measurement(pair.name, trial.damage, method, judge(image, pair.true))


def _nulls(trial: Trial, bases: Sequence[Image], ours: Sequence[Image]) -> Iterator[tuple[str, float, list[Image]]]:
    """Each null opponent: its name, its gain, what it made."""
    target = fmean(capped_psnr(image, pair.true) for image, pair in zip(ours, trial.pairs, strict=True))
    for name, texture in NULLS.items():
        result = null_result(texture, bases, [pair.true for pair in trial.pairs], capped_psnr, target)
        yield name, result.gain, result.images


def _restored(method: BenchMethod, damaged: Image, cache: ResultCache) -> Image:
    if not method.version:
        return method.restore(damaged)
    key = f"{method.name} {method.version} {method.settings} {image_digest(damaged)}"
    return cache.image(key, partial(method.restore, damaged))


def mean(
    measurements: Iterable[Measurement], metric: str, method: str, damages: Collection[str] | None = None
) -> float:
    """The mean of a metric over damages, each of which counts the same.

    Args:
        measurements: What there is.
        metric: Its name.
        method: Its name.
        damages: None for all but undamaged photos.

    Raises:
        ValueError: Nothing was measured.
    """
    values: dict[str, list[float]] = {}
    for m in measurements:
        if m.method == method and (m.damage in damages if damages is not None else m.damage != CLEAN):
            values.setdefault(m.damage, []).append(m.values[metric])
    if not values:
        raise ValueError(f"'{method}' has no measurement for {damages or 'any damage'}; expected at least one")
    return fmean(fmean(some) for some in values.values())


def compared(
    measurements: Iterable[Measurement], metric: str, ours: str, theirs: str, damages: Collection[str]
) -> PairedDifference:
    """Ours minus theirs in a metric, paired by photo; several damages of a photo are averaged first.

    Raises:
        ValueError: No photo was measured with both.
    """
    values: dict[str, dict[str, list[float]]] = {ours: {}, theirs: {}}
    for m in measurements:
        if m.method in values and m.damage in damages:
            values[m.method].setdefault(m.photo, []).append(m.values[metric])
    photos = [photo for photo in values[ours] if photo in values[theirs]]
    own, other = ([fmean(values[method][photo]) for photo in photos] for method in (ours, theirs))
    return paired(own, other)


@dataclass(frozen=True)
class Gate:
    """A claim about means and whether it holds: `value` against `limit`."""

    claim: str
    value: float
    limit: str
    passed: bool

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}: {self.claim}: {self.value:+.4f}, required {self.limit}"


def gates(measurements: Sequence[Measurement]) -> list[Gate]:
    """What the numbers must show for the model to be worth shipping, by the thresholds of `runtimes/limits.py`.

    The predictor against fastNlMeans on plain noise, and the whole model against the predictor on all damage; a gate
    is left out where nothing was measured for it.
    """
    found: list[Gate] = []
    measured = {(m.damage, m.method) for m in measurements}
    noises = [damage.name for damage in DAMAGES if damage.sigma is not None and (damage.name, NLM) in measured]
    if noises:
        claim = f"{NLM_GATE.metric}, {PREDICTOR} minus {NLM}, mean over {', '.join(noises)}"
        found.append(_gate(claim, NLM_GATE, measurements, PREDICTOR, NLM, noises))
    damaged = [m for m in measurements if m.damage != CLEAN and m.method in (DTPM, PREDICTOR)]
    for limit in TEXTURE_GATES:
        if damaged and limit.metric in damaged[0].values:
            claim = f"{limit.metric}, {DTPM} minus {PREDICTOR}, mean over all damage"
            found.append(_gate(claim, limit, damaged, DTPM, PREDICTOR, None))
    return found


def _gate(
    claim: str,
    limit: GateLimit,
    measurements: Sequence[Measurement],
    ours: str,
    theirs: str,
    damages: Collection[str] | None,
) -> Gate:
    change = mean(measurements, limit.metric, ours, damages) - mean(measurements, limit.metric, theirs, damages)
    return Gate(claim, change, str(limit), limit.allows(change))
