"""Timing several ways to do one thing in turn: on a GPU by its own events, on a CPU by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

__all__ = ["Call", "Time", "graphed", "interleaved"]

Call = Callable[[], object]

WARM_UP = 3  # calls of each before any counts: compilation, autotuning, the allocator
FLUSHED = 2**28  # bytes that are written before each timed call: more than any cache holds


@dataclass(frozen=True)
class Time:
    """Milliseconds of one call: the median over the rounds; one round in ten took less than `low`, or over `high`."""

    median: float
    low: float
    high: float


def interleaved(calls: Mapping[str, Call], device: str, rounds: int) -> dict[str, Time]:
    """Time each of the calls once a round, so that all of them meet the same moods of the machine.

    Each round starts with another of them. On a GPU its cache is filled with something else before each call.
    """
    for call in calls.values():
        for _ in range(WARM_UP if device == "cuda" else 1):
            call()
    once = _by_events() if device == "cuda" else _by_clock
    names = list(calls)
    found: dict[str, list[Callable[[], float]]] = {name: [] for name in names}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(once(calls[name]))
    return {name: _summary([read() for read in readers]) for name, readers in found.items()}


def graphed(call: Call) -> Call:
    """The same work as a CUDA graph: what is timed is then the device, not how fast Python can start kernels.

    Raises RuntimeError for work that cannot be captured.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def _by_clock(call: Call) -> Callable[[], float]:
    start = time.perf_counter()
    call()
    passed = 1e3 * (time.perf_counter() - start)
    return lambda: passed


def _by_events() -> Callable[[Call], Callable[[], float]]:
    cache = torch.empty(FLUSHED, dtype=torch.int8, device="cuda")

    def once(call: Call) -> Callable[[], float]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cache.zero_()
        start.record()
        call()
        end.record()

        def read() -> float:
            end.synchronize()
            return start.elapsed_time(end)

        return read

    return once


def _summary(milliseconds: list[float]) -> Time:
    low, median, high = torch.tensor(milliseconds, dtype=torch.float64).quantile(
        torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    )
    return Time(float(median), float(low), float(high))
