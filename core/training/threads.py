"""How many threads a run computes with: every idle core, but one thread beside a busy process.

OpenMP's threads wait for each other at every barrier, so two threads beside another busy process fall to an eighth of
their speed while a single one keeps its own. Results are the same bit for bit only at an unchanged number of threads.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from pathlib import Path

import torch

from ..errors import UsageError

__all__ = ["FILE_NAME", "Threads", "idle_cores", "parse_threads"]

FILE_NAME = "threads"  # in a run folder: "auto" or a number, which replaces the one given at the start
EVERY = 30.0  # seconds between looks at the machine
FIRST = 0.3  # seconds that the first look measures at least
SPARE = 0.25  # of a core: what others may use without costing a thread


def parse_threads(text: str) -> int | None:
    """A number of threads, None for "auto". Raises UsageError for anything else."""
    if text == "auto":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"threads must be 'auto' or a number above 0, got '{text}'")


class Threads:
    """Sets the threads of this process, now and again.

    wanted: a number, or None to follow the machine. run: folder whose file `threads` overrides it.
    """

    def __init__(self, wanted: int | None, run: Path) -> None:
        self.wanted = wanted
        self.file = run / FILE_NAME
        self._load = _Load()
        self._next = 0.0

    def adjust(self) -> int:
        """Look at the file and, every 30 seconds, at the machine; returns the number of threads now set."""
        wanted = self._asked()
        if wanted is None:
            if time.monotonic() < self._next:
                return torch.get_num_threads()
            wanted = idle_cores(_cores(), self._load.of_others(FIRST))
            self._next = time.monotonic() + EVERY
        else:
            self._next = 0.0
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)
        return wanted

    def _asked(self) -> int | None:
        try:
            return parse_threads(self.file.read_text().strip())
        except (OSError, UsageError):
            return self.wanted


def idle_cores(cores: int, others: float) -> int:
    """Threads for a machine of `cores` of which other processes keep `others` busy: at least one."""
    return max(1, cores - max(0, math.ceil(others - SPARE)))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Load:
    """What other processes use of the cores of this one."""

    def __init__(self) -> None:
        self._before = time.monotonic(), _busy_seconds()

    def of_others(self, least: float) -> float:
        """Cores that were busy with others since the last call, over `least` seconds or more."""
        since, before = self._before
        time.sleep(max(0.0, least - (time.monotonic() - since)))
        now, busy = time.monotonic(), _busy_seconds()
        self._before = now, busy
        if before is None or busy is None:  # not Linux: the mean of the last minute, ourselves included
            return max(0.0, os.getloadavg()[0] - torch.get_num_threads()) if hasattr(os, "getloadavg") else 0.0
        return max(0.0, (busy - before) / (now - since))


def _busy_seconds() -> float | None:
    """CPU seconds that others have spent on our cores since the machine started; None where nobody says."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    tick = os.sysconf("SC_CLK_TCK")
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = (line.split() for line in stat.read_text().splitlines())
    total = 0.0
    for name, *fields in rows:
        if name in ours:
            user, nice, system, _idle, _wait, irq, soft, steal = map(int, fields[:8])
            total += (user + nice + system + irq + soft + steal) / tick
    workers = (child.pid for child in multiprocessing.active_children())
    return total - sum(_own_seconds(pid, tick) for pid in (os.getpid(), *workers) if pid)


def _own_seconds(pid: int, tick: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # a worker that has just ended
    return (int(fields[11]) + int(fields[12])) / tick
