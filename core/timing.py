"""The one timer, and the processor that something was timed on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

__all__ = ["ISA_LIMIT", "Call", "Stopwatch", "by_clock", "instruction_sets", "interleaved", "processor"]

ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"  # environment: the newest instructions that oneDNN, and with it OpenVINO, may use

_CPUINFO = Path("/proc/cpuinfo")
_SETS = {  # what decides how fast networks run: flag of the Linux kernel -> its usual name
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_int8": "AMX",
    "asimddp": "dot product",
    "i8mm": "int8 matrices",
}

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
    """Time every call once a round, in turn, so that a busy moment of the machine hits all of them.

    Args:
        calls: What is timed, by name.
        rounds: How often each call is timed; each round starts with another one.
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


def processor() -> str:
    """The name of the processor in words for a page, as far as the system knows it; never that of the computer."""
    return _field("model name") or platform.processor() or "unknown processor"


def instruction_sets() -> str:
    """'AVX2, AVX-512, VNNI', and the limit that the environment sets; '' where the system does not list them."""
    flags = (_field("flags") or _field("Features")).split()
    names = [name for flag, name in _SETS.items() if flag in flags]
    limit = [f"{ISA_LIMIT}={os.environ[ISA_LIMIT]}"] if ISA_LIMIT in os.environ else []
    return ", ".join([*names, *limit])


def _field(name: str) -> str:
    """A line of the first core in Linux's list; '' elsewhere."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
