"""What can be said of the ops without a GPU: what they are, what they move by count, what they take when compiled."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from ...core.markdown import table
from .. import OPS, ahead, bench
from ..cases import Case
from ..select import DTYPES
from ..verify import module_of
from .page import write

__all__ = ["DTYPE", "WIDTHS", "write_counted"]

WIDTHS = (32, 64, 128)
DTYPE = torch.bfloat16
MOVED = Case(1, 64, 256, 256)  # what counts are taken at
SMALL = Case(1, 64, 64, 64)  # at which PyTorch's own reference is run; in S it is the same
SIDE = 64  # of the pictures that kernels are compiled for
TARGETS = tuple(ahead.TARGETS)


def write_counted(root: Path) -> None:
    """Look up, count and compile, and write what was found into the page; minutes."""
    write(root, {"ops": _ops(), "counted": _traffic(), "ahead": _resources()})


def _ops() -> str:
    """Each op by the docstrings of its two modules."""
    twins = {op: import_module(f"..{op}_triton", __package__) for op in OPS}
    return "\n\n".join(f"### `{op}`\n\n{_prose(module_of(op))}\n\n{_prose(twin)}" for op, twin in twins.items())


def _prose(module: ModuleType) -> str:
    return inspect.getdoc(module) or ""


def _traffic() -> str:
    head = ("op", "forward", "backward", "saved", "saved by PyTorch")
    lines = []
    for op in OPS:
        found = bench.traffic(op, MOVED, DTYPE)
        counts = [count / _bytes(MOVED) for count in (found.forward, found.backward, found.saved)]
        counts.append(bench.saved_by_reference(op, SMALL, DTYPE) / _bytes(SMALL))
        lines.append((f"`{op}`", *(f"{count:.1f} S" for count in counts)))
    return table([head, *lines], 1)


def _bytes(case: Case) -> int:
    return math.prod(case.shape) * DTYPE.itemsize


def _resources() -> str:
    head = ("op", "kernel", "C", *TARGETS, "spills")
    return table([head, *(line for op in OPS for width in WIDTHS for line in _lines(op, width))], 2)


def _lines(op: str, width: int) -> Iterator[tuple[str, ...]]:
    """One line per kernel of the op: what it takes in DTYPE, and what it spills in any dtype."""
    found = {dtype: _taken(op, width, dtype) for dtype in DTYPES}
    for kernel, taken in found[DTYPE].items():
        cells = (f"{r.registers}, {r.shared / 1024:.1f} KiB" for r in taken.values())
        most = {
            target: max(each[kernel][target].spilled for each in found.values() if kernel in each) for target in taken
        }
        spilled = ", ".join(f"{target}: {count}" for target, count in most.items() if count)
        yield f"`{op}`", f"`{kernel}`", str(width), *cells, spilled or "0"


def _taken(op: str, width: int, dtype: torch.dtype) -> dict[str, dict[str, ahead.Resources]]:
    """Kernel -> target -> the most that any of its starts takes."""
    found: dict[str, dict[str, ahead.Resources]] = {}
    for launch in ahead.launches(op, Case(1, width, SIDE, SIDE), dtype):
        taken = found.setdefault(launch.kernel.fn.__name__, {})
        for target in TARGETS:
            new = ahead.compiled(launch, target)
            taken[target] = ahead.Resources(*map(max, zip(new, taken.get(target, new), strict=True)))
    return found
