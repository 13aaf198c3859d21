"""Photos to record: squares of files, damaged as a model expects it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..quantization.samples import Sample, samples
from .record import Shot

__all__ = ["STRENGTHS", "shots"]

STRENGTHS = (1.0, 0.5)  # in turn, so that one that is ignored shows


def shots(paths: Sequence[Path], task: str, side: int, strengths: Sequence[float] = STRENGTHS) -> list[Shot]:
    """The centre of each photo, at most `side` pixels wide and high, damaged by a task; the seed is its place.

    The strengths are taken in turn, a single photo once with each.
    """
    repeated = [paths[0] for _ in strengths] if len(paths) == 1 else list(paths)
    return [_shot(sample, strengths[sample.seed % len(strengths)]) for sample in samples(repeated, task, side)]


def _shot(sample: Sample, strength: float) -> Shot:
    return Shot(f"{sample.name} {sample.seed}", sample.damaged, sample.seed, strength, sample.clean)
