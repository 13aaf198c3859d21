"""The threads and the precision of a run: one thread per idle core; bf16 only if the hardware supports it natively.

OpenMP's threads wait for each other at every barrier, so two threads that share their cores with a busy process fall to
an eighth of their speed, while a single thread keeps its own. Results are the same bit for bit only with an unchanged
number of threads. Emulated bf16 is three to four times slower than fp32.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import time
from pathlib import Path

import torch

from ...errors import UsageError

__all__ = ["FILE_NAME", "RECIPE_PRECISIONS", "Threads", "idle_cores", "parse_threads", "resolve"]

RECIPE_PRECISIONS = ("auto", "bf16", "fp32")
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # environment variables that limit the instructions oneDNN uses
WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")  # such limits
FILE_NAME = "threads"  # in a run folder: "auto" or a number, which overrides the one given at the start
EVERY = 30.0  # seconds between looks at the machine
FIRST = 0.3  # least seconds of the first measurement
SPARE = 0.25  # of a core: load of other processes that does not cost a thread


def parse_threads(text: str) -> int | None:
    """A number of threads, or None for "auto". Raises UsageError for anything else."""
    if text == "auto":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"threads must be 'auto' or a number above 0, got '{text}'")


class Threads:
    """Sets the number of threads of this process, repeatedly.

    wanted: a number, or None to follow the machine. run: folder whose file `threads` overrides it.
    """

    def __init__(self, wanted: int | None, run: Path) -> None:
        self.wanted = wanted
        self.file = run / FILE_NAME
        self._load = _Load()
        self._next = 0.0

    def adjust(self) -> int:
        """Follow the file and, every 30 seconds, the load of the machine; returns the number of threads now set."""
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
    """The load of other processes on the cores of this one."""

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
    """CPU seconds of other processes on our cores since the machine started; None if the system does not report it."""
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


def resolve(wanted: str, device: torch.device) -> str:
    """Return "bf16" or "fp32": `wanted` itself, or for "auto" the one that is native to `device`.

    A limit on oneDNN's instructions is respected: with ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI a CPU with AMX has no bf16.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if _native(device) else "fp32"


def _native(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "xpu":
        return torch.xpu.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if any(os.environ.get(name, "").upper() in WITHOUT_BF16 for name in LIMITS):
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # on Arm it asks for the bf16 instructions
