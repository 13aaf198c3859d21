"""Timing several ways to do one thing in turn: on a GPU by its own events, on a CPU by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

__all__ = ["Call", "Time", "graphed", "interleaved"]

Call: TypeAlias = Callable[[], object]

WARM_UP = 3  # calls of each before any counts: compilation, autotuning, the allocator
FLUSHED = 2**28  # bytes that are written before each timed call: more than any cache holds


class Time(NamedTuple):
    """Milliseconds of one call: the median over the rounds, and the 10th and 90th percentile."""

    median: float
    low: float
    high: float


def interleaved(calls: Mapping[str, Call], device: str, rounds: int) -> dict[str, Time]:
    """Time each of the calls once a round, so that all of them meet the same state of the machine.

    Each round starts with another of them. On a GPU its cache is filled with something else before each call.
    """
    for call in calls.values():
        for _ in range(WARM_UP if device == "cuda" else 1):
            call()
    cache = torch.empty(FLUSHED if device == "cuda" else 0, dtype=torch.int8, device=device)
    names = list(calls)
    found: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(_milliseconds(calls[name], cache))
    shares = torch.tensor([0.5, 0.1, 0.9], dtype=torch.float64)
    return {
        name: Time(*torch.tensor(all_, dtype=torch.float64).quantile(shares).tolist()) for name, all_ in found.items()
    }


def _milliseconds(call: Call, cache: Tensor) -> float:
    if not cache.is_cuda:
        begin = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begin)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cache.zero_()  # takes longer than Python needs to start the call: the GPU does not wait in between
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def graphed(call: Call) -> Call:
    """Return the same work as a CUDA graph: what is timed is then the device, not how fast Python starts kernels.

    Raises:
        RuntimeError: for work that cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> object:
        graph.replay()
        return kept

    return replay
