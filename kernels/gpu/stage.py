"""One stage in a process of its own: a kernel that spoils the device, or hangs, then costs one item and no more."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from .environment import exact_float32
from .results import Results, StageResult

__all__ = ["STAGES", "Item", "LeftOutError", "Setup", "StageModule", "stage_module", "work"]

# With the share of the time that each may take; what one leaves over is there for the next.
STAGES = {
    "probe": 0.04,
    "compile": 0.1,
    "verify": 0.14,
    "bench": 0.32,
    "models": 0.14,
    "recording": 0.06,
    "training": 0.2,
}


class LeftOutError(Exception):
    """An item that cannot be done here, and is not to count as a failure; the message says why."""


@dataclass(frozen=True)
class Setup:
    """What the items of a stage know."""

    root: Path  # the clone
    out: Path  # where results go
    carried: Path  # what `pack` wrote
    ops: tuple[str, ...]
    deadline: float  # by time.time(), when the stage should have ended
    dry_run: bool
    earlier: Mapping[str, StageResult]  # what the stages before found
    environment: Mapping[str, str]  # of `describe`

    @property
    def device(self) -> str:
        """What runs things; a dry run has no GPU."""
        return "cpu" if self.dry_run else "cuda"

    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()


class Item(NamedTuple):
    """One piece of work: `run` gives instances of the stage's ROW; those before an exception are kept."""

    name: str
    run: Callable[[], Iterable[Any]]


class StageModule(Protocol):
    """What the module of a stage offers."""

    ROW: type
    KEY: tuple[str, ...]
    LEAST_S: float

    def items(self, setup: Setup) -> Iterator[Item]:
        """The work in the order in which it matters. The names differ, and are the same in every process."""
        ...


def stage_module(name: str) -> StageModule:
    """The module of a stage of STAGES."""
    return import_module(f".{name}", __package__)  # type: ignore[return-value]


def work(name: str, setup: Setup) -> bool:
    """Run the items of a stage that are not finished yet; False if the device is spoilt and another process must go on.

    After every item the results in `setup.out` are replaced.
    """
    results = Results.load(setup.out)
    results.environment = dict(setup.environment)
    stage = results.stages[name]
    try:
        exact_float32()
        module = stage_module(name)
        todo = list(module.items(setup))[stage.finished :]
    except Exception:
        stage.errors[name] = traceback.format_exc()
        stage.complete = True
        results.save(setup.out)
        return True
    for item in todo:
        if setup.left_s() < module.LEAST_S:
            stage.left_out[item.name] = f"{max(0, setup.left_s()):.0f} s were left, it needs {module.LEAST_S:.0f} s"
            continue
        stage.running = item.name
        results.save(setup.out)
        whole = _run(item, stage)
        stage.running = ""
        stage.finished += 1
        results.save(setup.out)
        if not whole:
            return False
    stage.complete = True
    results.save(setup.out)
    return True


def _run(item: Item, stage: StageResult) -> bool:
    """Whether the device can go on."""
    try:
        for row in item.run():
            stage.rows.append(asdict(row))
    except LeftOutError as reason:
        stage.left_out[item.name] = str(reason)
    except Exception:
        stage.errors[item.name] = traceback.format_exc()
    return _device_works()


def _device_works() -> bool:
    """An illegal access stays in the process: every later call fails too. Gives back the memory of the item."""
    if not torch.cuda.is_initialized():
        return True
    try:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True
