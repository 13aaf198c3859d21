"""Several ways to do one thing, timed in turn, so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from tqdm import tqdm

__all__ = ["interleaved"]

Name = TypeVar("Name", bound=Hashable)


def interleaved(
    calls: Mapping[Name, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[Name, list[float]]:
    """Seconds of each call in each round, after one call of each that does not count.

    clock: of the CPU, where another program on the machine does not count; `time.perf_counter` for what a user waits.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for counted in tqdm([False] + [True] * rounds, desc="timing", unit="round", disable=None):
        for name, call in calls.items():
            start = clock()
            call()
            seconds[name] += [clock() - start] if counted else []
    return seconds
