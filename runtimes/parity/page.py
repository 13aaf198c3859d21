"""The table of packs, runtimes and precisions, between marks on a page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from ...core.errors import UsageError
from ...core.files import write_text
from ...core.markdown import table
from ...core.pack.manifest import Manifest
from .. import RUNTIMES
from .comparison import CompareOptions, compare
from .findings import ErrorSource, ParityReport
from .formats import decibels, verdict
from .reference import load
from .variants import ERROR_SOURCES, FP32, described

__all__ = ["TableRow", "fill", "measured", "table_text"]

TABLE_MARKS = "<!-- table -->", "<!-- /table -->"
NOT_RUN = ("replay",)  # runtimes that compute nothing
TABLE_HEAD = ("system", "pack", "runtime", "precision", "graphs", "fused/split", "images", "task", "reference", "")


class TableRow(NamedTuple):
    """One pack in one runtime and precision."""

    system: str
    pack: str
    runtime: str
    precision: str
    report: ParityReport | None  # None if it could not be run here
    reason: str  # why it could not be run, else ""


def measured(packs: Sequence[Path], references: Sequence[Path], threads: int | None = None) -> Iterator[TableRow]:
    """Compare every pack, and each of its tasks, in every runtime and precision that it has graphs for.

    A reference is used for the packs of its checkpoint; other packs are compared with their golden restorations.

    Raises:
        UsageError: A reference belongs to none of the packs.
        PackError: As `compare` does.
    """
    known = {load(path).about.checkpoint: path for path in references}
    chosen = [
        (folder, task, manifest.of(task))
        for folder, manifest in ((folder, Manifest.load(folder)) for folder in packs)
        for task in (manifest.tasks if manifest.further else [None])
    ]
    for checkpoint in set(known) - {manifest.made_by.get("checkpoint") for *_, manifest in chosen}:
        raise UsageError(f"none of the packs comes from the checkpoint of {known[checkpoint]}; leave it out")
    for folder, task, manifest in chosen:
        against = known.get(manifest.made_by.get("checkpoint", ""))
        for runtime, precision in _ways(manifest):
            name = manifest.name if task is None else f"{manifest.name}, {task}"
            names = (manifest.model, name, described(runtime), precision)
            options = CompareOptions(runtime, precision=precision, against=against, threads=threads, task=task)
            try:
                report = compare(folder, options)
            except UsageError as error:  # without the runtime, or on a processor without its arithmetic
                yield TableRow(*names, None, str(error))
            else:
                yield TableRow(*names, report, "")


def table_text(rows: Sequence[TableRow]) -> str:
    """The table, and what it was measured on."""
    lines = table([TABLE_HEAD, *map(_line, rows)], left=4)
    reports = [row.report for row in rows if row.report is not None]
    facts = dict.fromkeys(_facts(report) for report in reports)
    left_out = [f"- {row.pack} in {row.runtime}, {row.precision}: not run, {row.reason}" for row in rows if row.reason]
    broken = [
        f"- {row.pack} in {row.runtime}, {row.precision}: {verdict(row.report)}"
        for row in rows
        if row.report is not None and not row.report.ok
    ]
    return "\n".join([lines, "", *(f"- {fact}" for fact in facts), *left_out, *broken])


def fill(page: Path, content: str) -> None:
    """Put `content` between the marks of a page; UsageError for a page without marks."""
    start, end = TABLE_MARKS
    try:
        old = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"'{page}' cannot be read ({error}); give a page with {start} and {end} in it") from error
    new, found = re.subn(
        rf"(?<={re.escape(start)}\n).*?(?={re.escape(end)})", lambda _: f"\n{content}\n\n", old, flags=re.DOTALL
    )
    if found != 1:
        raise UsageError(f"'{page}' lacks {start} ... {end}; put them where the table belongs")
    write_text(page, new)


def _ways(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Every (runtime, precision) in which a pack can be run."""
    for runtime in RUNTIMES:
        targets = () if runtime in NOT_RUN else import_module(f"..{runtime}", __package__).TARGETS
        target = next((target for target in targets if target in manifest.precision), None)
        if target is not None:
            offered = [spec.files[target] for spec in manifest.graphs.values()]
            labels = dict.fromkeys(label for files in offered for label in files)
            # A graph that a quantization plan leaves alone is in float32 next to others that are not.
            whole = all(FP32 in files for files in offered)
            yield from ((runtime, label) for label in labels if whole or label != FP32)


def _line(row: TableRow) -> tuple[str, ...]:
    names = row.system, row.pack, row.runtime, row.precision
    if row.report is None:
        return (*names, "", "", "", "", "", "not run")
    sources = {source.name: source for source in row.report.sources}
    graphs = [_worst_db(sources[name]) for name in ERROR_SOURCES if name in sources]
    return (
        *names,
        _cell(min(graphs, default=None, key=lambda db: math.inf if db is None else db)),
        _cell(_worst_db(sources.get("forms"))),
        _cell(_worst_db(sources.get("picture"))),
        _mean(sources.get("task")),
        row.report.environment.get("reference device", "its golden photos"),
        "held" if row.report.ok else "BREACH",
    )


def _worst_db(source: ErrorSource | None) -> float | None:
    """The lowest PSNR of an error source, None where it was not measured."""
    found = [] if source is None else [check.found.psnr_db for check in source.checks if check.found is not None]
    return min(found, default=None)


def _cell(db: float | None) -> str:
    return "-" if db is None else decibels(db)


def _mean(source: ErrorSource | None) -> str:
    """The mean change of the PSNR to the clean photos, of the form that lost most."""
    found = [] if source is None else [check.change_db for check in source.checks if check.change_db is not None]
    return f"{min(found):+.3f} dB" if found else "-"


def _facts(report: ParityReport) -> str:
    """Where the numbers come from."""
    words = ", ".join(f"{name} {fact}" for name, fact in report.environment.items())
    return f"{report.reference}; {words}"
