"""The tables of docs/kernels.md, which stand there between marks: what is known of the ops without a GPU."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.files import write_text
from pocketprior.core.markdown import table
from pocketprior.kernels import OPS
from pocketprior.kernels.select import DTYPES, Shape

from . import ahead, bench
from .verify import module_of

__all__ = ["DTYPE", "PAGE", "WIDTHS", "blocks", "write", "write_tables"]

PAGE = Path("docs") / "kernels.md"  # in the clone
WIDTHS = (32, 64, 128)
DTYPE = torch.bfloat16
MOVED: Shape = (1, 64, 256, 256)  # what counts are taken at
SMALL: Shape = (1, 64, 64, 64)  # at which PyTorch's own reference is run; in S it is the same
SIDE = 64  # of the images that kernels are compiled for


def write_tables(root: Path) -> None:
    """Look up, count and compile, and write what was found into the page; takes minutes."""
    write(root, {"ops": _ops(), "counted": _traffic(), "ahead": _resources()})


def write(root: Path, texts: Mapping[str, str]) -> None:
    """Replace what stands between the marks of each name in docs/kernels.md.

    Raises:
        UsageError: if the page lacks the marks of a name.
    """
    page = (root / PAGE).read_text(encoding="utf-8")
    for name, text in texts.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        page, found = re.subn(
            rf"(?<={re.escape(start)}\n).*?(?={re.escape(end)})", lambda _, t=text: f"\n{t}\n\n", page, flags=re.DOTALL
        )
        if found != 1:
            raise UsageError(f"{PAGE} has no {start} ... {end}; put them back where the table belongs")
    write_text(root / PAGE, page)


def blocks(page: str) -> dict[str, str]:
    """Return what stands between the marks of a page, by name."""
    return {name: text.strip() for name, text in re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", page, re.DOTALL)}


def _ops() -> str:
    """Each op by the docstrings of its two modules."""
    modules = {op: (module_of(op), module_of(f"{op}_triton")) for op in OPS}
    return "\n\n".join(
        f"### `{op}`\n\n{inspect.getdoc(plain)}\n\n{inspect.getdoc(fused)}" for op, (plain, fused) in modules.items()
    )


def _traffic() -> str:
    head = ("op", "forward", "backward", "saved", "saved by PyTorch")
    lines = []
    for op in OPS:
        found = bench.traffic(op, MOVED, DTYPE)
        counts = [count / _bytes(MOVED) for count in (found.forward, found.backward, found.saved)]
        counts.append(bench.saved_by_reference(op, SMALL, DTYPE) / _bytes(SMALL))
        lines.append((f"`{op}`", *(f"{count:.1f} S" for count in counts)))
    return table([head, *lines], 1)


def _bytes(shape: Shape) -> int:
    return math.prod(shape) * DTYPE.itemsize


def _resources() -> str:
    head = ("op", "kernel", "C", *ahead.TARGETS, "spills")
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
    for launch in ahead.launches(op, (1, width, SIDE, SIDE), dtype):
        taken = found.setdefault(launch.kernel.fn.__name__, {})
        for target in ahead.TARGETS:
            new = ahead.compiled(launch, target)
            taken[target] = ahead.Resources(*map(max, zip(new, taken.get(target, new), strict=True)))
    return found
