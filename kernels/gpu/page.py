"""The tables of docs/kernels.md, which stand there between marks: measured on a GPU, or counted without one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.files import atomic_output
from ...core.markdown import table
from ..bench import WAYS
from .models import WAYS as MODEL_WAYS
from .verify import OPCHECK

__all__ = ["FOLDER", "NOT_MEASURED", "PAGE", "blocks", "write", "write_measured"]

PAGE = Path("docs") / "kernels.md"  # in the clone
FOLDER = Path("benchmarks") / "gpu"  # of the results that were collected
NOT_MEASURED = "Not yet measured: no GPU was at hand so far."

Row = Mapping[str, Any]


def write(root: Path, texts: Mapping[str, str]) -> None:
    """Replace what stands between the marks of each name in docs/kernels.md."""
    page = (root / PAGE).read_text(encoding="utf-8")
    for name, text in texts.items():
        start, end = _marks(name)
        page, found = re.subn(
            rf"(?<={re.escape(start)}\n).*?(?={re.escape(end)})", lambda _, t=text: f"\n{t}\n\n", page, flags=re.DOTALL
        )
        if found != 1:
            raise UsageError(f"{PAGE} has no {start} ... {end}; put them back where the table belongs")
    with atomic_output(root / PAGE, overwrite=True) as temporary:
        temporary.write_text(page, encoding="utf-8")


def blocks(page: str) -> dict[str, str]:
    """What stands between the marks of a page, by name."""
    return {name: text.strip() for name, text in re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", page, re.DOTALL)}


def write_measured(root: Path) -> None:
    """Write the tables of every stage, from the results that were collected."""
    write(root, {stage: _measured(root / FOLDER / f"{stage}.json", rows) for stage, rows in _TABLES.items()})


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def _measured(path: Path, rows_of: Callable[[Sequence[Row]], str]) -> str:
    if not path.exists():
        return NOT_MEASURED
    tree = json.loads(path.read_text(encoding="utf-8"))
    found = rows_of(tree["rows"]) if tree["rows"] else "Nothing was measured."
    failed = "".join(f"\n- failed: {item}" for item in tree["errors"])
    left_out = "".join(f"\n- left out: {item} ({why})" for item, why in tree["left_out"].items())
    notes = f"\n{failed}{left_out}" if failed or left_out else ""
    return f"{_origin(tree)}\n\n{found}{notes}"


def _origin(tree: Mapping[str, Any]) -> str:
    where = tree["environment"]
    words = [where["device"], *(f"{name} {where[name]}" for name in ("torch", "triton", "cuda") if name in where)]
    dry = "**A dry run on a CPU: no measurements.** " if tree["dry_run"] else ""
    return f"{dry}{', '.join(words)}; {where['date']}, sources `{where['sources']}`."


def _probe(rows: Sequence[Row]) -> str:
    head = ("what", "size", "rate", "ms (10 % to 90 %)")
    return table([head, *((r["what"], r["size"], f"{r['rate']:.0f} {r['unit']}", _time(r["time"])) for r in rows)], 2)


def _compile(rows: Sequence[Row]) -> str:
    head = ("ops", "calls compiled", "seconds", "processes")
    lines = [(r["what"], f"{r['done']} of {r['of']}", f"{r['seconds']:.0f}", str(r["processes"])) for r in rows]
    return table([head, *lines], 1)


def _verify(rows: Sequence[Row]) -> str:
    head = ("op", "comparisons", "of them fail", "nearest to its bound", "opcheck")
    lines = []
    for op in sorted({row["op"] for row in rows}):
        checks = [row for row in rows if row["op"] == op and row["layout"] == OPCHECK]
        found = [row for row in rows if row["op"] == op and row["layout"] != OPCHECK]
        shares = [row["error"] / row["bound"] for row in found if row["error"] is not None and row["bound"]]
        opcheck = "passes" if checks else "not run"
        failing = sum(not row["holds"] for row in found)
        lines.append((op, str(len(found)), str(failing), f"{max(shares, default=0):.2f}", opcheck))
    return table([head, *lines], 1)


def _bench(rows: Sequence[Row]) -> str:
    """One line per op, size and passes; times of PyTorch as multiples of the twin's."""
    ways = (f"{way} x" for way in WAYS[1:])
    head = ("op", "size", "passes", "ms (10 % to 90 %)", *ways, "of copy", "saved x compiled")
    return "\n\n".join([table([head, *map(_bench_line, rows)], 3), *_kernel_shares(rows)])


def _bench_line(row: Row) -> tuple[str, ...]:
    times, memory = row["times"], row["memory"]
    ours = times[WAYS[0]]
    ratios = (f"{times[way]['median'] / ours['median']:.2f}" for way in WAYS[1:])
    share = "" if row["share"] is None else f"{100 * row['share']:.0f} %"
    theirs = memory["compiled"]["saved"] if memory else 0
    saved = f"{memory['fused']['saved'] / theirs:.2f}" if theirs else ""
    return row["op"], f"{row['case']} {row['dtype']}", row["passes"], _time(ours), *ratios, share, saved


def _kernel_shares(rows: Sequence[Row]) -> list[str]:
    lines = [
        (row["op"], row["case"], f"`{kernel}`", f"{100 * share:.0f} %")
        for row in rows
        for kernel, share in row["kernels"].items()
    ]
    return [table([("op", "size", "kernel", "of copy"), *lines], 3)] if lines else []


def _models(rows: Sequence[Row]) -> str:
    head = ("model", "work", "pictures", *(f"{way} ms" for way in MODEL_WAYS), "peak GiB, fused", "reference")
    lines = []
    for row in rows:
        times = (f"{row['times'][way]['median']:.1f}" if way in row["times"] else "" for way in MODEL_WAYS)
        peak = (f"{row['peak'][way] / 2**30:.2f}" if row["peak"] else "" for way in MODEL_WAYS[:2])
        lines.append((f"{row['system']}:{row['size']}", row["work"], row["pictures"], *times, *peak))
    return table([head, *lines], 3)


def _recording(rows: Sequence[Row]) -> str:
    head = ("system", "checkpoint", "photos", "calls", "largest difference to a CPU")
    lines = [
        (
            row["system"],
            f"`{row['checkpoint'][:16]}`",
            str(len(row["photos"])),
            str(sum(row["calls"].values())),
            f"{max(row['difference'].values()):.1e}",
        )
        for row in rows
    ]
    return table([head, *lines], 2)


def _training(rows: Sequence[Row]) -> str:
    head = ("run", "stage", "step", "seconds there", "figures")
    lines = [
        (
            row["run"],
            f"{row['system']} {row['stage']}",
            f"{row['step']} of {row['steps']}",
            f"{row['seconds']:.0f}",
            ", ".join(f"{name} {value:.4g}" for name, value in row["figures"].items()),
        )
        for row in rows
    ]
    return table([head, *lines], 2)


def _time(time: Mapping[str, float]) -> str:
    return f"{time['median']:.3f} ({time['low']:.3f} to {time['high']:.3f})"


_TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "probe": _probe,
    "compile": _compile,
    "verify": _verify,
    "bench": _bench,
    "models": _models,
    "recording": _recording,
    "training": _training,
}
