"""Restore the same damaged photos with every method and measure what comes out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

from tqdm import tqdm

from ...core.arrays import Image
from ...core.degradations.fixed import CLEAN, image_digest
from ...core.metrics.baselines import NULLS, null_result
from ...core.metrics.intervals import PairedDifference, paired
from .cache import Cache
from .judge import Judge, capped_psnr
from .methods import DTPM, INPUT, PREDICTOR, Method
from .photos import Trial

__all__ = ["Measurement", "Results", "compared", "mean", "run"]


@dataclass(frozen=True)
class Measurement:
    """What one method made of one damaged photo."""

    photo: str
    damage: str
    method: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Results:
    """Every measurement; by damage the methods with their settings, and the gains of the null opponents."""

    measurements: list[Measurement] = field(default_factory=list[Measurement])
    methods: dict[str, Sequence[Method]] = field(default_factory=dict[str, Sequence[Method]])
    gains: dict[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])


def run(
    trials: Iterable[Trial], methods_for: Callable[[Trial], Sequence[Method]], judge: Judge, count: int | None = None
) -> Results:
    """Every trial by the methods for it, and by the null opponents of our whole model where it is among them.

    count: how many trials there are, for the progress.
    """
    results = Results()
    for trial in tqdm(trials, desc="restoring and measuring", unit="damage", total=count, disable=None):
        methods = methods_for(trial)
        results.methods[trial.damage] = methods
        images = {INPUT: [pair.damaged for pair in trial.pairs]}
        results.measurements.extend(_judged(trial, INPUT, images[INPUT], judge))
        for method in methods:
            made = [
                _restored(method, pair.damaged, judge.cache) if _meant(method, pair.name) else None
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


def _meant(method: Method, photo: str) -> bool:
    return method.only is None or photo in method.only


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


def _restored(method: Method, damaged: Image, cache: Cache) -> Image:
    if not method.version:
        return method.restore(damaged)
    key = f"{method.name} {method.version} {method.settings} {image_digest(damaged)}"
    return cache.picture(key, partial(method.restore, damaged))


def mean(
    measurements: Iterable[Measurement], metric: str, method: str, damages: Collection[str] | None = None
) -> float:
    """The mean of a metric of a method over damages, each of which counts the same.

    damages: None for all but undamaged photos. Raises ValueError where nothing was measured.
    """
    values: dict[str, list[float]] = {}
    for m in measurements:
        if m.method == method and (m.damage in damages if damages is not None else m.damage != CLEAN):
            values.setdefault(m.damage, []).append(m.values[metric])
    if not values:
        raise ValueError(f"'{method}' has no measurement for {damages or 'any damage'}; give at least one")
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
