"""The one timer: several ways to do one thing, timed in turn, so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from tqdm import tqdm

__all__ = ["Call", "Stopwatch", "by_clock", "interleaved"]

Name = TypeVar("Name", bound=Hashable)
Call = Callable[[], object]
# Runs a call and returns a function that reads the seconds it took, once they are known: on a GPU that is later.
Stopwatch = Callable[[Call], Callable[[], float]]


def by_clock(clock: Callable[[], float] = time.process_time) -> Stopwatch:
    """A stopwatch for work on the CPU.

    Args:
        clock: Returns seconds: `time.process_time` counts CPU time, which other programs do not add to;
            `time.perf_counter` counts what a user waits.
    """

    def timed(call: Call) -> Callable[[], float]:
        start = clock()
        call()
        seconds = clock() - start
        return lambda: seconds

    return timed


def interleaved(
    calls: Mapping[Name, Call], rounds: int, stopwatch: Stopwatch | None = None, *, warm_up: int = 1
) -> dict[Name, list[float]]:
    """Time every call once a round; each round starts with another one.

    Args:
        calls: What is timed, by name.
        rounds: How often each call is timed.
        stopwatch: How; None for CPU time. On a GPU it also has to fill the caches with something else.
        warm_up: Untimed calls of each before the first round.

    Returns:
        The seconds of every call, round by round.
    """
    stopwatch = stopwatch or by_clock()
    for call in calls.values():
        for _ in range(warm_up):
            call()
    names = list(calls)
    readers: dict[Name, list[Callable[[], float]]] = {name: [] for name in names}
    for number in tqdm(range(rounds), desc="timing", unit="round", disable=None):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            readers[name].append(stopwatch(calls[name]))
    return {name: [read() for read in timed] for name, timed in readers.items()}
