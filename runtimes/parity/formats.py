"""A report as lines for a terminal, as JSON for programs and as JUnit XML for continuous integration; many as a table.

The table is that of packs, runtimes and precisions, between marks on a page.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ...core.errors import PackError, UsageError
from ...core.files import write_text
from ...core.markdown import table
from ...core.pack.manifest import Manifest
from ...core.restore.reference import REPLAY, load
from .. import RUNTIMES, target_for
from .comparison import CompareOptions, compare
from .findings import Check, ErrorSource, LayerDifference, ParityReport
from .variants import ERROR_SOURCES, FP32, described

__all__ = ["TableRow", "as_json", "as_junit", "as_text", "decibels", "fill", "measured", "table_text", "verdict"]

TABLE_MARKS = "<!-- table -->", "<!-- /table -->"
NOT_RUN = (REPLAY,)  # runtimes that compute nothing
TABLE_HEAD = ("system", "pack", "runtime", "precision", "graphs", "fused/split", "images", "task", "reference", "")
FAILED_SHOWN = 3  # failed checks of an error source; the rest are counted
# What XML 1.0 cannot hold: control characters, halves of surrogate pairs, and two that are no characters.
NOT_XML = dict.fromkeys({*range(32)} - {9, 10, 13} | {*range(0xD800, 0xE000), 0xFFFE, 0xFFFF})


def as_text(report: ParityReport) -> str:
    """Some twenty lines."""
    lines = [
        f"{report.pack} ({report.model}) in {report.runtime}",
        f"precision: {report.precision}; arithmetic: {report.arithmetic}",
        f"reference: {report.reference}",
        *(f"  {run}" for run in report.runs),
        "",
        *(line for source in report.sources for line in _source_lines(source)),
        "",
        *([] if report.budget is None else [str(report.budget)]),
        *map(_layer_line, report.layers),
        *report.notes,
        verdict(report),
    ]
    return "\n".join(lines)


def verdict(report: ParityReport) -> str:
    """One sentence."""
    if report.first is not None:
        source, check = report.first
        return f"FAIL  first at the error source '{source.name}': {check}: {check.problem}"
    if not report.ok:
        return "FAIL  nothing was compared"
    return f"ok    {report.compared} arrays were compared, all within their limits"


def decibels(value: float) -> str:
    """A PSNR in words."""
    if math.isinf(value):
        return "equal" if value > 0 else "not finite"
    return f"{value:.1f} dB"


def _source_lines(source: ErrorSource) -> list[str]:
    if not source.checks:
        return [f"{source.name:<13}not measured: {source.reason}"]
    changes = [check for check in source.checks if check.change_db is not None]
    detail = f"  {min(changes, key=lambda check: check.change_db or 0).place}" if changes else ""
    if source.worst is not None:
        check, found = source.worst
        detail = f"{decibels(found.psnr_db):>10}  at {check}"
    head = f"{source.name:<13}{source.status:<8}{len(source.checks):>5}  {source.allowed:<10}{detail}".rstrip()
    failed = [f"    {check}: {check.problem}" for check in source.broken[:FAILED_SHOWN]]
    left = len(source.broken) - len(failed)
    return [head, *failed, *([f"    and {left} more"] if left else [])]


def _layer_line(layer: LayerDifference) -> str:
    module = f", {layer.module}" if layer.module else ""
    first = "  FIRST TO BREAK" if layer.broken else ""
    return f"layer {layer.graph} {layer.name} ({layer.operator}{module}): {decibels(layer.found.psnr_db)}{first}"


def as_json(report: ParityReport) -> str:
    """One object, without the images; a number that is not finite, such as the PSNR of equal arrays, is null."""
    first, budget = report.first, report.budget
    tree = {
        "ok": report.ok,
        "compared": report.compared,
        "first": None if first is None else {"stage": first[0].name, **_check_tree(first[1])},
        **{
            name: getattr(report, name) for name in ("pack", "model", "runtime", "precision", "arithmetic", "reference")
        },
        "environment": dict(report.environment),
        "runs": list(report.runs),
        "stages": [
            {
                "name": source.name,
                "status": source.status,
                "reason": source.reason,
                "limit": None if source.limit is None else source.limit._asdict(),
                "checks": [_check_tree(check) for check in source.checks],
            }
            for source in report.sources
        ],
        "budget": budget and {"stages": dict(budget.sources), "total": budget.total, "rest": budget.rest},
        "pictures": [{"case": image.case, "form": image.form, **asdict(image.found)} for image in report.images],
        "layers": [{**layer._asdict(), "found": asdict(layer.found)} for layer in report.layers],
        "notes": list(report.notes),
    }
    return json.dumps(_finite(tree), indent=1, allow_nan=False)


def _check_tree(check: Check) -> dict[str, Any]:
    found = {} if check.found is None else asdict(check.found)
    change = {} if check.change_db is None else {"change_db": check.change_db}
    return {"graph": check.graph, "place": check.place, "problem": check.problem, **found, **change}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_junit(report: ParityReport) -> str:
    """A suite per error source, a case per check.

    An error source that was not measured is a skipped case; a run that compared nothing has a failed case.
    """
    words = "parity", report.pack, report.runtime, report.precision, report.arithmetic
    root = Element("testsuites", name=" ".join(words).translate(NOT_XML))
    for source in report.sources:
        skipped = 0 if source.checks else 1
        counts = {"tests": len(source.checks) + skipped, "failures": len(source.broken), "skipped": skipped}
        suite = SubElement(root, "testsuite", {"name": source.name, **{name: str(n) for name, n in counts.items()}})
        classname = f"parity.{source.name}"
        for check in source.checks:
            case = SubElement(suite, "testcase", name=str(check).translate(NOT_XML), classname=classname)
            if check.problem:
                SubElement(case, "failure", message=check.problem.translate(NOT_XML))
            elif check.found is not None:
                SubElement(case, "system-out").text = decibels(check.found.psnr_db)
        if skipped:
            case = SubElement(suite, "testcase", name="not measured", classname=classname)
            SubElement(case, "skipped", message=source.reason.translate(NOT_XML))
    if not report.compared:
        suite = SubElement(root, "testsuite", name="nothing", tests="1", failures="1", skipped="0")
        case = SubElement(suite, "testcase", name="nothing was compared")
        SubElement(case, "failure", message="nothing was compared")
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


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
    facts = dict.fromkeys(
        f"- {report.reference}; {', '.join(f'{name} {fact}' for name, fact in report.environment.items())}"
        for report in reports
    )
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
    found = {s.name: [check.found.psnr_db for check in s.checks if check.found is not None] for s in report.sources}
    lowest = {name: min(values) for name, values in found.items() if values}
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
