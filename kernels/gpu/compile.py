"""Every kernel is compiled beforehand, on all cores: one after the other, as they are first started, takes minutes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch

from .. import ahead
from ..cases import Case
from ..launch_triton import OPTIONS
from ..select import DTYPES
from ..verify import module_of
from .stage import Item, Setup

__all__ = ["KEY", "LEAST_S", "ROW", "Compiled", "items"]

LEAST_S = 20.0
DRY_TARGET = "sm_90"


@dataclass(frozen=True)
class Compiled:
    """How much was compiled in the time there was."""

    what: str
    done: int  # calls of ops, each with all of its kernels
    of: int
    seconds: float
    processes: int


ROW = Compiled
KEY = ("what",)


def items(setup: Setup) -> Iterator[Item]:
    """All ops at once."""
    yield Item("kernels", partial(_compile_all, setup))


def _compile_all(setup: Setup) -> Iterator[Compiled]:
    start = time.monotonic()
    calls = _calls(setup)
    processes = 1 if setup.dry_run else os.cpu_count() or 1
    # Not forked: a process that has begun to use CUDA cannot be.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    futures = [pool.submit(_compile, *call, setup.dry_run) for call in calls]
    done, errors = 0, list[BaseException]()
    with suppress(TimeoutError):  # what is not compiled now will be when it is started
        for future in as_completed(futures, setup.left_s()):
            error = future.exception()
            done += error is None
            errors += [error] if error else []
    pool.shutdown(cancel_futures=True)
    yield Compiled(", ".join(setup.ops), done, len(calls), round(time.monotonic() - start, 1), processes)
    if errors:
        raise errors[0]


def _calls(setup: Setup) -> list[tuple[str, Case, torch.dtype]]:
    if setup.dry_run:
        return [(setup.ops[0], module_of(setup.ops[0]).CASES[0], torch.float32)]
    return [(op, case, dtype) for dtype in reversed(DTYPES) for op in setup.ops for case in module_of(op).CASES]


def _compile(op: str, case: Case, dtype: torch.dtype, dry_run: bool) -> None:
    """Into Triton's cache on disk, where the start of the kernel looks."""
    for launch in ahead.launches(op, case, dtype):
        if dry_run:
            ahead.compiled(launch, DRY_TARGET)
        else:
            options = {"num_warps": launch.warps, "num_stages": launch.stages, **OPTIONS}
            launch.kernel.warmup(*launch.arguments, grid=(1,), **launch.constants, **options)
