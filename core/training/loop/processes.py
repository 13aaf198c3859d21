"""The processes and devices of a run, as `accelerate launch` or `torchrun` started them; its interruption; its guard.

Ctrl-C and SIGTERM are requests that the loop grants between two steps. The guard stops a run whose loss is not finite
or runs away, before it spoils the saved weights.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from statistics import median
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import torch

from ...errors import MissingExtraError, TrainingError, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Guard", "Interrupt", "close", "processes"]

PATIENCE = timedelta(hours=2)  # for which processes wait while only the main one validates


def processes() -> Accelerator:
    """Return Accelerate's view of this process: one, DDP or FSDP2, on the GPU if there is one.

    Precision and accumulation come from the recipe, not from the launcher.

    Raises:
        MissingExtraError: If Accelerate is not installed.
        UsageError: For FSDP version 1 and for unsupported engines.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
    except ModuleNotFoundError as error:
        raise MissingExtraError("accelerate", "train", "training") from error

    supported = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP)
    found = Accelerator(
        cpu=not torch.accelerator.is_available(),  # without it several CPU processes would not find each other
        mixed_precision="no",
        gradient_accumulation_steps=1,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if found.distributed_type == DistributedType.MULTI_CPU and _asked_for("ACCELERATE_USE_FSDP"):
        # Accelerate shards only on accelerators and would silently use DDP; torch shards on CPUs as well.
        found.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        found.state.distributed_type = DistributedType.FSDP
    kind = found.distributed_type
    if kind not in supported:
        raise UsageError(f"launched with {kind.value}; supported: {', '.join(s.value for s in supported)}")
    if kind == DistributedType.FSDP and not found.is_fsdp2:
        raise UsageError("launched with FSDP version 1; ask for version 2 (accelerate launch --fsdp_version 2)")
    return found


def _asked_for(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")


def close() -> None:
    """End the process group that `processes` started."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Within its context, the first signal sets `wanted`; the second has its usual effect."""

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids handlers
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.wanted = True
        self.__exit__()


RECENT = 25  # steps whose median loss is checked
BEFORE = 200  # steps before them, with which it is compared
LIMIT = 12  # median absolute deviations by which the loss may rise


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
                raise TrainingError(f"{name} is {value} at step {step}; {_ADVICE}")
        self._losses.append(figures["loss"])
        if len(self._losses) == BEFORE + RECENT and (step + 1) % RECENT == 0:
            self._check_rise(step)

    def _check_rise(self, step: int) -> None:
        losses = list(self._losses)
        before, recent = losses[:BEFORE], median(losses[BEFORE:])
        usual = median(before)
        deviation = median(abs(loss - usual) for loss in before)
        if recent > usual + LIMIT * max(deviation, 1e-6 * abs(usual)):
            raise TrainingError(f"the loss rose from about {usual:.4g} to {recent:.4g} by step {step}; {_ADVICE}")


_ADVICE = (
    "the last good state is saved: start again in a new --out folder with a lower rate (--set rate=...), a longer "
    "warm-up (--set warmup=...) or clipped gradients (--set clip=1)"
)
