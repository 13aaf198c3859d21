"""A report as lines for a terminal, as JSON for programs, and as JUnit XML for continuous integration."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ..limits import ParityLimit
from .findings import Check, ErrorSource, LayerDifference, ParityReport

__all__ = ["allowed", "as_json", "as_junit", "as_text", "decibels", "verdict"]

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
        *_budget_lines(report),
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


def allowed(limit: ParityLimit | None) -> str:
    """The least PSNR of a limit, in words; '' for None."""
    return "" if limit is None else f">= {limit.psnr_db:g} dB"


def _source_lines(source: ErrorSource) -> list[str]:
    if not source.checks:
        return [f"{source.name:<13}not measured: {source.reason}"]
    changes = [check for check in source.checks if check.change_db is not None]
    detail = f"  {min(changes, key=lambda check: check.change_db or 0).place}" if changes else ""
    if source.worst is not None:
        check, found = source.worst
        detail = f"{decibels(found.psnr_db):>10}  at {check}"
    head = f"{source.name:<13}{source.status:<8}{len(source.checks):>5}  {allowed(source.limit):<10}{detail}".rstrip()
    failed = [f"    {check}: {check.problem}" for check in source.broken[:FAILED_SHOWN]]
    left = len(source.broken) - len(failed)
    return [head, *failed, *([f"    and {left} more"] if left else [])]


def _budget_lines(report: ParityReport) -> list[str]:
    if report.budget is None:
        return []
    shares = ", ".join(f"{source} {error:.2g}" for source, error in report.budget.sources.items())
    return [
        f"error of the final images, root mean square in grey levels of 255: {report.budget.total:.2g} in all; "
        f"{shares}; unexplained rest {report.budget.rest:+.2g}"
    ]


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
