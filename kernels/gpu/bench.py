"""The benchmark of every op, `kernels.bench`, at its real sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from .. import bench as measure
from ..cases import LARGE, Case
from .probe import COPY
from .stage import Item, Setup

__all__ = ["KEY", "LEAST_S", "ROW", "items"]

LEAST_S = 30.0  # torch.compile searches for tens of seconds
ROW = measure.Measured
KEY = ("op", "case", "dtype", "passes")
DRY = Case(1, 16, 4, 4)


def items(setup: Setup) -> Iterator[Item]:
    """In bfloat16 at every size, all ops at the first before any at the next."""
    bandwidth = _bandwidth(setup)
    dtype, rounds = (torch.float32, 1) if setup.dry_run else (torch.bfloat16, measure.ROUNDS)
    for case in (DRY,) if setup.dry_run else LARGE:
        for op in setup.ops:
            yield Item(f"{op} at {case}", partial(measure.bench, op, case, dtype, bandwidth, setup.device, rounds))


def _bandwidth(setup: Setup) -> float:
    """Bytes a second that a copy of a large array moves, as the probe found, or measured now."""
    probed = setup.earlier.get("probe")
    for row in probed.rows if probed else ():
        if row["what"] == COPY:
            return 1e9 * row["rate"]
    size = 2**16 if setup.dry_run else measure.COPIED
    return 2e3 * size / measure.copy_bandwidth(setup.device, size).median
