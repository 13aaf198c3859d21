"""The table of packs, runtimes and precisions, between marks on a page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...core.errors import PackError, UsageError
from ...core.files import write_text
from ...core.markdown import table
from ...core.pack.manifest import Manifest
from ...core.restore.reference import load
from .. import RUNTIMES, target_for
from .comparison import CompareOptions, compare
from .findings import ParityReport
from .formats import decibels, verdict
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

    A reference is used for the packs of its checkpoint; other packs are compared with their golden restorations. Raises
    UsageError for a reference that belongs to none of the packs, PackError as `compare` does.
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
    machines = (", ".join(f"{name} {fact}" for name, fact in report.environment.items()) for report in reports)
    facts = dict.fromkeys(f"- {report.reference}; {words}" for report, words in zip(reports, machines, strict=True))
    named = [(f"- {row.pack} in {row.runtime}, {row.precision}:", row) for row in rows]
    left_out = [f"{name} not run, {row.reason}" for name, row in named if row.reason]
    broken = [f"{name} {verdict(row.report)}" for name, row in named if row.report is not None and not row.report.ok]
    return "\n".join([lines, "", *facts, *left_out, *broken])


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
    for runtime in (name for name in RUNTIMES if name not in NOT_RUN):
        try:
            target = target_for(manifest, runtime)
        except PackError:
            continue
        offered = [spec.files[target] for spec in manifest.graphs.values()]
        labels = dict.fromkeys(label for files in offered for label in files)
        # A graph that a quantization plan leaves alone is in float32 next to others that are not.
        whole = all(FP32 in files for files in offered)
        yield from ((runtime, label) for label in labels if whole or label != FP32)


def _line(row: TableRow) -> tuple[str, ...]:
    names, report = row[:4], row.report
    if report is None:
        return (*names, "", "", "", "", "", "not run")
    lowest: dict[str, float] = {}
    for source in report.sources:
        for check in source.checks:
            if check.found is not None:
                lowest[source.name] = min(check.found.psnr_db, lowest.get(source.name, math.inf))
    graphs = [lowest[name] for name in ERROR_SOURCES if name in lowest]
    figures = [min(graphs, default=None), lowest.get("forms"), lowest.get("picture")]
    # The mean change of the PSNR to the clean photos, of the form that lost most.
    changes = [check.change_db for source in report.sources for check in source.checks if check.change_db is not None]
    return (
        *names,
        *("-" if db is None else decibels(db) for db in figures),
        f"{min(changes):+.3f} dB" if changes else "-",
        report.environment.get("reference device", "its golden photos"),
        "held" if report.ok else "BREACH",
    )
