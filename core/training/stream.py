"""Photos that come and go: of a large collection, training holds a window at a time.

The samples of a step are dealt in order to `GROUPS` groups, and each group draws from `GROUP_PHOTOS` photos of its own,
for `WINDOW_SAMPLES` samples of the batch (about 64 for each photo); then come others. Which photos these are depends on
the seed, the number of the sample and its place in the batch alone: a run resumes exactly, and is the same with any
number of processes. A process decodes only what its own groups need: with eight or more of them, one group each.

Memory: the window in use and, in a worker, the next one, which a thread reads: at most 2 * 32 photos for each group of
the process, which are 8 for a process that is alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch.utils.data
from numpy.random import Generator, Philox

from .photos import Pool, load

__all__ = ["GROUPS", "GROUP_PHOTOS", "Folder", "Stream", "group_of", "shuffled"]

GROUPS = 8
GROUP_PHOTOS = 32
WINDOW_SAMPLES = 64 * GROUPS * GROUP_PHOTOS


def group_of(position: int, batch: int) -> int:
    """The group of a sample by its position in the batch."""
    return position * GROUPS // batch


def shuffled(place: int, count: int, seed: int) -> int:
    """Item number `place` of the endless row of `count` items: each once, in a new order, before any comes again."""
    round_, index = divmod(place, count)
    return int(Generator(Philox(key=[seed, 2**62 + round_])).permutation(count)[index])


class Stream:
    """A source of photos, window after window. Each worker process has its own copy.

    read: the photos of a place; places 0, 1, ... are the windows of all groups in turn.
    """

    def __init__(self, read: Callable[[int], Pool]) -> None:
        self._read = read
        self._held: dict[int, tuple[int, Pool]] = {}  # group -> window, photos
        self._ahead: dict[int, tuple[int, Future[Pool]]] = {}

    def at(self, sample: int, group: int = 0) -> Pool:
        """As in `Source`. Raises TrainingError when photos cannot be read, or none is large enough."""
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
    """Reads the photos of a place from files: `GROUP_PHOTOS` of the endless shuffled row of them."""

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
