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
from .methods import DTPM, INPUT, NLM, PREDICTOR, BenchMethod, ResultCache
from .trials import Trial

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
        """The metrics of the tables; with `quick` only those of QUICK.

        lpips: Weights of LPIPS, which is left out without them; UsageError for a file of something else.
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

    count: How many trials there are, for the progress bar.
    """
    results = QualityResults()
    for trial in tqdm(trials, desc="restoring and measuring", unit="damage", total=count, disable=None):
        methods = results.methods[trial.damage] = methods_for(trial)
        gains: dict[str, float] = {}
        for method, images in _made(trial, methods, judge.cache, gains):
            results.measurements.extend(
                Measurement(pair.name, trial.damage, method, judge(image, pair.true))
                for pair, image in zip(trial.pairs, images, strict=True)
                if image is not None
            )
        if gains:
            results.gains[trial.damage] = gains
    return results


def _made(
    trial: Trial, methods: Sequence[BenchMethod], cache: ResultCache, gains: dict[str, float]
) -> Iterator[tuple[str, Sequence[Image | None]]]:
    """What each method makes of the photos of a trial; null opponents last, whose gains are written to `gains`."""
    yield INPUT, [pair.damaged for pair in trial.pairs]
    ours: dict[str, list[Image]] = {}
    for method in methods:
        images = [
            _restored(method, pair.damaged, cache) if method.only is None or pair.name in method.only else None
            for pair in trial.pairs
        ]
        yield method.name, images
        if method.name in (PREDICTOR, DTPM):
            ours[method.name] = [image for image in images if image is not None]
    if len(ours) < 2:
        return
    truths = [pair.true for pair in trial.pairs]
    target = fmean(map(capped_psnr, ours[DTPM], truths))
    for name, texture in NULLS.items():
        result = null_result(texture, ours[PREDICTOR], truths, capped_psnr, target)
        gains[name] = result.gain
        yield name, result.images


def _restored(method: BenchMethod, damaged: Image, cache: ResultCache) -> Image:
    if not method.version:
        return method.restore(damaged)
    key = f"{method.name} {method.version} {method.settings} {image_digest(damaged)}"
    return cache.image(key, partial(method.restore, damaged))


def mean(
    measurements: Iterable[Measurement], metric: str, method: str, damages: Collection[str] | None = None
) -> float:
    """The mean of a metric over `damages` (None: all but undamaged photos), each of which counts the same.

    Raises ValueError where nothing was measured.
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

    Raises ValueError where no photo was measured with both.
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
    measured = {(m.damage, m.method) for m in measurements}
    noises = [damage.name for damage in DAMAGES if damage.sigma is not None and (damage.name, NLM) in measured]
    damaged = [m for m in measurements if m.damage != CLEAN and m.method in (DTPM, PREDICTOR)]
    shown = damaged[0].values if damaged else {}
    comparisons: list[tuple[GateLimit, str, str, list[str] | None]] = []
    comparisons += [(NLM_GATE, PREDICTOR, NLM, noises)] if noises else []
    comparisons += [(gate, DTPM, PREDICTOR, None) for gate in TEXTURE_GATES if gate.metric in shown]
    found: list[Gate] = []
    for limit, ours, theirs, damages in comparisons:
        change = mean(measurements, limit.metric, ours, damages) - mean(measurements, limit.metric, theirs, damages)
        over = "all damage" if damages is None else ", ".join(damages)
        claim = f"{limit.metric}, {ours} minus {theirs}, mean over {over}"
        found.append(Gate(claim, change, str(limit), limit.allows(change)))
    return found
