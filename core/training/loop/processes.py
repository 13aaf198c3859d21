"""The processes, devices, threads and precision of a run; its interruption; its guard.

`accelerate launch` or `torchrun` start the processes. Ctrl-C and SIGTERM are requests that the loop grants between two
steps. The guard stops a run whose loss is not finite or runs away, before it spoils the saved weights.

A process has one thread per idle core: OpenMP's threads wait for each other at every barrier, so two threads that share
their cores with a busy process fall to an eighth of their speed, while a single thread keeps its own. Results are the
same bit for bit only with an unchanged number of threads.

bf16 is used only if the hardware supports it natively: emulated, it is three to four times slower than fp32.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MissingExtraError, TrainingError, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Guard", "Threads", "close", "idle_cores", "interrupt", "parse_threads", "processes", "resolve"]

PATIENCE = timedelta(hours=2)  # for which processes wait while only the main one validates
SIGNALS = (signal.SIGINT, signal.SIGTERM)

THREADS_NAME = "threads"  # in a run folder: "auto" or a number, which overrides the one given at the start
EVERY = 30.0  # seconds between looks at the machine
FIRST = 0.3  # least seconds of the first measurement
SPARE = 0.25  # of a core: load of other processes that does not cost a thread

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # environment variables that limit the instructions oneDNN uses
WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")  # such limits

RECENT = 25  # steps whose median loss is checked
BEFORE = 200  # steps before them, with which it is compared
LIMIT = 12  # median absolute deviations by which the loss may rise
ADVICE = (
    "the last good state is saved: start again in a new --out folder with a lower rate (--set rate=...), a longer "
    "warm-up (--set warmup=...) or clipped gradients (--set clip=1)"
)


def processes() -> Accelerator:
    """Return Accelerate's view of this process: one, DDP or FSDP2, on the GPU if there is one.

    Precision and accumulation come from the recipe, not from the launcher. Raises MissingExtraError without Accelerate,
    UsageError for FSDP version 1 and for unsupported engines.
    """
    try:
        from accelerate import Accelerator, utils
    except ModuleNotFoundError as error:
        raise MissingExtraError("accelerate", "train", "training") from error

    types = utils.DistributedType
    supported = (types.NO, types.MULTI_CPU, types.MULTI_GPU, types.FSDP)
    found = Accelerator(
        cpu=not torch.accelerator.is_available(),  # without it several CPU processes would not find each other
        mixed_precision="no",
        gradient_accumulation_steps=1,
        kwargs_handlers=[utils.InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if found.distributed_type == types.MULTI_CPU and utils.parse_flag_from_env("ACCELERATE_USE_FSDP"):
        # Accelerate shards only on accelerators and would silently use DDP; torch shards on CPUs as well.
        found.state.fsdp_plugin = utils.FullyShardedDataParallelPlugin()
        found.state.distributed_type = types.FSDP
    kind = found.distributed_type
    if kind not in supported:
        raise UsageError(f"launched with {kind.value}; supported: {', '.join(s.value for s in supported)}")
    if kind == types.FSDP and not found.is_fsdp2:
        raise UsageError("launched with FSDP version 1; ask for version 2 (accelerate launch --fsdp_version 2)")
    return found


def close() -> None:
    """End the process group that `processes` started."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def interrupt() -> Generator[threading.Event]:
    """Within, the first signal sets the event that is yielded; the second has its usual effect."""
    wanted, before = threading.Event(), dict[signal.Signals, Any]()

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(*_: object) -> None:
        wanted.set()
        put_back()

    if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids handlers
        before |= {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield wanted
    finally:
        put_back()


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
        self.file = run / THREADS_NAME
        self._next = 0.0
        self._before = time.monotonic(), _busy_seconds()

    def adjust(self) -> int:
        """Follow the file and, every 30 seconds, the load of the machine; returns the number of threads now set."""
        try:
            wanted = parse_threads(self.file.read_text().strip())
        except (OSError, UsageError):
            wanted = self.wanted
        if wanted is None:
            if time.monotonic() < self._next:
                return torch.get_num_threads()
            wanted = idle_cores(_cores(), self.load_of_others(FIRST))
            self._next = time.monotonic() + EVERY
        else:
            self._next = 0.0
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)
        return wanted

    def load_of_others(self, least: float) -> float:
        """Our cores that were busy with other processes since the last call, over `least` seconds or more."""
        since, before = self._before
        time.sleep(max(0.0, least - (time.monotonic() - since)))
        now, busy = time.monotonic(), _busy_seconds()
        self._before = now, busy
        if before is None or busy is None:  # not Linux: the mean of the last minute, ourselves included
            return max(0.0, os.getloadavg()[0] - torch.get_num_threads()) if hasattr(os, "getloadavg") else 0.0
        return max(0.0, (busy - before) / (now - since))


def idle_cores(cores: int, others: float) -> int:
    """Threads for a machine of `cores` of which other processes keep `others` busy: at least one."""
    return max(1, cores - max(0, math.ceil(others - SPARE)))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


class Guard:
    """Checks the figures of each step in turn."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=BEFORE + RECENT)

    def check(self, step: int, figures: Mapping[str, float]) -> None:
        """Raise TrainingError if a figure is not finite, or the loss has left the range of the steps before.

        The median of the last 25 losses may exceed that of the 200 before by 12 of their median absolute deviations:
        single bad batches pass, and the loss may have any scale or sign.
        """
        for name, value in figures.items():
            if not math.isfinite(value):
                raise TrainingError(f"{name} is {value} at step {step}; {ADVICE}")
        self._losses.append(figures["loss"])
        if len(self._losses) < BEFORE + RECENT or (step + 1) % RECENT:
            return
        losses = list(self._losses)
        before, recent = losses[:BEFORE], median(losses[BEFORE:])
        usual = median(before)
        deviation = median(abs(loss - usual) for loss in before)
        if recent > usual + LIMIT * max(deviation, 1e-6 * abs(usual)):
            raise TrainingError(f"the loss rose from about {usual:.4g} to {recent:.4g} by step {step}; {ADVICE}")
