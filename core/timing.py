"""The one timer, and the processor that something was timed on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

__all__ = ["ISA_LIMIT", "instruction_sets", "interleaved", "processor"]

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


def interleaved(calls: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, list[float]]:
    """Time every call once a round, in turn, so that a busy moment of the machine hits all of them.

    Each round starts with another call; before the first one every call is made once, untimed. Returns the seconds of
    CPU time of every call, round by round; other programs do not add to them.
    """
    for call in calls.values():
        call()
    names = list(calls)
    seconds: dict[Name, list[float]] = {name: [] for name in names}
    for number in tqdm(range(rounds), desc="timing", unit="round", disable=None):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            start = time.process_time()
            calls[name]()
            seconds[name].append(time.process_time() - start)
    return seconds


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
