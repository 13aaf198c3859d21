"""Every op by the rule of `kernels.verify`, at small and at real sizes, in every dtype; and PyTorch's own check."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from .. import verify as rule
from ..cases import Case
from ..select import DTYPES
from .stage import Item, LeftOutError, Setup

__all__ = ["KEY", "LEAST_S", "OPCHECK", "ROW", "Verified", "items"]

LEAST_S = 10.0
REAL = 10_000  # pixels from which a case is a real size
OPCHECK = "opcheck"


@dataclass(frozen=True)
class Verified:
    """The comparison of one call that came nearest to its bound, or went over it."""

    op: str
    case: str
    dtype: str
    layout: str  # of LAYOUTS, or "opcheck"
    what: str  # "output", "gradient I", or "opcheck"
    error: float | None  # None: not a finite number
    bound: float
    holds: bool


ROW = Verified
KEY = ("op", "case", "dtype", "layout")


def items(setup: Setup) -> Iterator[Item]:
    """Per dtype, training's first, all ops at small sizes and then at real ones, from small to large.

    A dry run takes the first case of each op alone.
    """
    if setup.dry_run:
        for op in setup.ops:
            yield Item(op, partial(_compared, op, _cases(op, real=False)[:1], torch.float32, rule.LAYOUTS[:1], "cpu"))
        return
    for dtype in reversed(DTYPES):
        for op in setup.ops:
            cases = _cases(op, real=False)
            yield Item(f"{op} in {dtype}", partial(_compared, op, cases, dtype, rule.LAYOUTS, setup.device))
        for case in sorted({case for op in setup.ops for case in _cases(op, real=True)}, key=_size):
            for op in setup.ops:
                if case in rule.module_of(op).CASES:
                    call = partial(_compared, op, [case], dtype, ["channels_last"], setup.device)
                    yield Item(f"{op} in {dtype} at {case}", call)
    for op in setup.ops:
        yield Item(f"{op}, {OPCHECK}", partial(_opcheck, op, _cases(op, real=False)[0], setup.device))


def _cases(op: str, *, real: bool) -> list[Case]:
    return [case for case in rule.module_of(op).CASES if (case.height * case.width >= REAL) == real]


def _size(case: Case) -> tuple[int, ...]:
    return math.prod(case.shape), *case.shape


def _compared(
    op: str, cases: Sequence[Case], dtype: torch.dtype, layouts: Sequence[str], device: str
) -> Iterator[Verified]:
    wrong = 0
    for case, layout in product(cases, layouts):
        try:
            found = _worst(op, case, dtype, layout, device)
        except torch.OutOfMemoryError as error:
            raise LeftOutError(f"{case} with its truth in float64 does not fit this device: {error}") from None
        wrong += not found.holds
        yield found
    if wrong:
        raise AssertionError(f"{wrong} comparisons do not hold")


def _opcheck(op: str, case: Case, device: str) -> Iterator[Verified]:
    args = tuple(rule.arguments(op, case, torch.float32, "contiguous", device))
    torch.library.opcheck(rule.module_of(op).fused, args)  # raises what it finds
    yield Verified(op, str(case), "float32", OPCHECK, OPCHECK, 0.0, 0.0, True)


def _worst(op: str, case: Case, dtype: torch.dtype, layout: str, device: str) -> Verified:
    found = max(rule.verify(op, case, dtype, layout, device), key=_excess)
    error = found.error if math.isfinite(found.error) else None
    name = str(dtype).removeprefix("torch.")
    bound = found.bound if math.isfinite(found.bound) else 0.0
    return Verified(op, str(case), name, layout, found.what, error, bound, found.holds)


def _excess(found: rule.Finding) -> float:
    """The share of the bound that is used up; what is not a number is worst."""
    if not math.isfinite(found.error):
        return math.inf
    return found.error / found.bound if found.bound else math.inf if found.error else 0.0
