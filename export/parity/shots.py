"""Photos to record: squares of files, damaged as a model expects it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..quantization.samples import Sample, samples
from ..source import Opened
from .record import Shot

__all__ = ["settings_of", "shots"]

Pairs = Sequence[tuple[float, float]]  # strengths and amounts; in turn, so that one that is ignored shows

STRENGTHS: Pairs = ((1.0, 1.0), (0.5, 1.0))
AMOUNTS: Pairs = ((1.0, 1.0), (0.5, 1.5), (1.0, 0.5))


def settings_of(opened: Opened) -> Pairs:
    """Strengths and amounts to record a model with; the amount is 1 where its graphs take none."""
    return AMOUNTS if any("amount" in graph.inputs for graph in opened.graphs.values()) else STRENGTHS


def shots(paths: Sequence[Path], task: str, side: int, settings: Pairs = STRENGTHS) -> list[Shot]:
    """The centre of each photo, at most `side` pixels wide and high, damaged by a task; the seed is its place.

    settings: a strength and an amount for each in turn; a single photo is taken once with each.
    """
    repeated = [paths[0] for _ in settings] if len(paths) == 1 else list(paths)
    return [_shot(sample, *settings[sample.seed % len(settings)]) for sample in samples(repeated, task, side)]


def _shot(sample: Sample, strength: float, amount: float) -> Shot:
    return Shot(f"{sample.name} {sample.seed}", sample.damaged, sample.seed, strength, sample.clean, amount)
