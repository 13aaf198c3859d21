"""The batches of one process, and the window of photos that they are drawn from.

Sample i of step s has the number s * batch + i, and is a function of the seed and that number, in whatever process it
is drawn. Process r of P computes the r-th of P equal shares of the batch, in `accumulate` parts; together they compute
the same samples as a single process.

Training holds a window of a large collection at a time. The samples of a step are divided in order into `GROUPS`
groups, and each group draws from `GROUP_PHOTOS` photos of its own, for `WINDOW_SAMPLES` samples of the batch (about 64
for each photo); others follow. The choice of photos depends only on the seed, the number of the sample and its place in
the batch: a run resumes exactly, with any number of processes. A process decodes only the photos of its own groups;
with eight or more processes, of one group.

Memory: the current window and, in a worker, the next one, which a thread reads: at most 2 * 32 photos for each group of
the process, of which a single process has 8.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.utils.data
from numpy.random import Philox
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...errors import TrainingError, UsageError
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, TrainingStage, stacked
from .photos import PhotoSource, Pool, load

__all__ = ["GROUPS", "GROUP_PHOTOS", "Folder", "Stream", "batches", "group_of", "share_of", "shuffled"]

GROUPS = 8
GROUP_PHOTOS = 32
WINDOW_SAMPLES = 64 * GROUPS * GROUP_PHOTOS


def group_of(position: int, batch: int) -> int:
    """The group of a sample by its position in the batch."""
    return position * GROUPS // batch


def shuffled(place: int, count: int, seed: int) -> int:
    """Item number `place` of an endless sequence of `count` items: all of them once, in a new order, and again."""
    round_, index = divmod(place, count)
    return int(np.random.Generator(Philox(key=[seed, 2**62 + round_])).permutation(count)[index])


class Stream:
    """A source of photos, window after window. Each worker process has its own copy.

    read: the photos of a place; places 0, 1, ... are the windows of all groups in turn.
    """

    def __init__(self, read: Callable[[int], Pool]) -> None:
        self._read = read
        self._held: dict[int, tuple[int, Pool]] = {}  # group -> window, photos
        self._ahead: dict[int, tuple[int, Future[Pool]]] = {}

    def at(self, sample: int, group: int = 0) -> Pool:
        """As in `PhotoSource`. Raises TrainingError when photos cannot be read, or none is large enough."""
        window = sample // WINDOW_SAMPLES
        if group not in self._held or self._held[group][0] != window:
            self._held[group] = (window, self._window(window, group))
        if torch.utils.data.get_worker_info() is not None:  # only workers, which are not forked any further
            self._read_ahead(window)
        return self._held[group][1]

    def _window(self, window: int, group: int) -> Pool:
        self._held.pop(group, None)
        number, future = self._ahead.pop(group, (None, None))
        return future.result() if future and number == window else self._read(window * GROUPS + group)

    def _read_ahead(self, window: int) -> None:
        """Read the next window of one of the groups in use, unless one is being read."""
        if all(future.done() for _, future in self._ahead.values()):
            for group in sorted(self._held.keys() - self._ahead.keys())[:1]:
                reader = ThreadPoolExecutor(1)
                self._ahead[group] = (window + 1, reader.submit(self._read, (window + 1) * GROUPS + group))
                reader.shutdown(wait=False)


class Folder:
    """Reads the photos of a place from files: the next `GROUP_PHOTOS` of the endless shuffled sequence."""

    def __init__(
        self,
        paths: Sequence[Path],
        damaged: Sequence[Path],
        seed: int,
        *,
        minimum: int,
        side: int,
        structures: bool,
    ) -> None:
        self.paths, self.damaged, self.seed = paths, damaged, seed
        self.minimum, self.side, self.structures = minimum, side, structures

    def __call__(self, place: int) -> Pool:
        """The pool of a place. Raises TrainingError when none of its photos is large enough."""
        first = place * GROUP_PHOTOS
        chosen = [shuffled(first + i, len(self.paths), self.seed) for i in range(GROUP_PHOTOS)]
        return load(
            [self.paths[i] for i in chosen],
            damaged=[self.damaged[i] for i in chosen] if self.damaged else (),
            minimum=self.minimum,
            side=self.side,
            structures=self.structures,
            quiet=True,
        )


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

    def __init__(self, stage: TrainingStage, source: PhotoSource, recipe: Recipe, rank: int, processes: int) -> None:
        self.draw, self.source, self.recipe = stage.draw, source, recipe
        self.rank = rank
        self.share = share_of(recipe, processes)

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        step, part = divmod(k, self.recipe.accumulate)
        first = (self.rank * self.recipe.accumulate + part) * self.share
        return stacked([self._sample(step, first + i) for i in range(self.share)])

    def _sample(self, step: int, position: int) -> Arrays:
        start = step * self.recipe.batch
        pool = self.source.at(start, group_of(position, self.recipe.batch))
        rng = np.random.Generator(np.random.Philox(key=[self.recipe.seed, start + position]))
        return self.draw(pool, self.recipe.crop_at(step), rng)


def batches(
    stage: TrainingStage, source: PhotoSource, recipe: Recipe, *, start: int, rank: int, processes: int, workers: int
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
    """The message of an error in a worker, without the worker's traceback that torch prepends."""
    return message.rstrip().rpartition(f"{TrainingError.__name__}: ")[2]


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, but the training process needs its workers until it has saved."""
    del worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
