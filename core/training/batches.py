"""The batches of one process: each sample is a function of (seed, its number), whoever draws it.

Sample i of step s has the number s * batch + i. Process r of P computes the r-th of P equal shares of the batch, in
`accumulate` parts; together they see the same samples as one process would.
"""

from __future__ import annotations

import signal
from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import TrainingError, UsageError
from .photos import Source
from .recipe import Recipe
from .stage import Arrays, Stage
from .stream import group_of

__all__ = ["batches", "share_of"]

PREFETCH = 4  # parts of batches that a worker draws ahead


def share_of(recipe: Recipe, processes: int) -> int:
    """Samples in one part of one process. Raises UsageError when the batch cannot be divided equally."""
    parts = processes * recipe.accumulate
    if recipe.batch % parts:
        raise UsageError(
            f"a batch of {recipe.batch} does not divide into {processes} processes x {recipe.accumulate} parts; "
            f"choose a multiple of {parts} (--set batch=...) or another number of parts (--set accumulate=...)"
        )
    return recipe.batch // parts


class _Parts(Dataset[dict[str, Tensor]]):
    """Part k of a process: `k // accumulate` is the step."""

    def __init__(self, stage: Stage, source: Source, recipe: Recipe, rank: int, processes: int) -> None:
        self.draw, self.source, self.recipe = stage.draw, source, recipe
        self.rank = rank
        self.share = share_of(recipe, processes)

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        step, part = divmod(k, self.recipe.accumulate)
        first = (self.rank * self.recipe.accumulate + part) * self.share
        samples = [self._sample(step, first + i) for i in range(self.share)]
        return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}

    def _sample(self, step: int, position: int) -> Arrays:
        start = step * self.recipe.batch
        pool = self.source.at(start, group_of(position, self.recipe.batch))
        rng = np.random.Generator(np.random.Philox(key=[self.recipe.seed, start + position]))
        return self.draw(pool, self.recipe.crop_at(step), rng)


def batches(
    stage: Stage, source: Source, recipe: Recipe, *, start: int, rank: int, processes: int, workers: int
) -> Generator[dict[str, Tensor]]:
    """The parts of the steps from `start` on, in order; `workers` processes draw them ahead, until it is closed."""
    parts = recipe.accumulate
    loader = DataLoader(
        _Parts(stage, source, recipe, rank, processes),
        batch_size=None,
        sampler=range(start * parts, recipe.steps * parts),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=_leave_signals_to_the_parent,
    )
    try:
        yield from loader
    except TrainingError as error:
        raise TrainingError(_last_words(str(error))) from error


def _last_words(message: str) -> str:
    """The message of an error that torch brought from a worker: it puts the worker's traceback before it."""
    return message.rstrip().rpartition(f"{TrainingError.__name__}: ")[2]


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training process needs its workers until it has saved."""
    del worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
