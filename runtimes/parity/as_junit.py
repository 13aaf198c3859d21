"""A report as JUnit XML, which continuous integration shows: a suite per stage, a case per check."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from .findings import Check, Report, Stage
from .text import decibels

__all__ = ["as_junit"]

# What XML 1.0 cannot say: control characters, halves of surrogate pairs, and two that are no characters.
NOT_XML = dict.fromkeys({*range(32)} - {9, 10, 13} | {*range(0xD800, 0xE000), 0xFFFE, 0xFFFF})


def as_junit(report: Report) -> str:
    """A stage that was not measured is a case that was skipped; a run that compared nothing has a case that failed."""
    words = "parity", report.pack, report.runtime, report.precision, report.arithmetic
    root = Element("testsuites", name=" ".join(words).translate(NOT_XML))
    for stage in report.stages:
        _suite(root, stage)
    if not report.compared:
        suite = SubElement(root, "testsuite", name="nothing", tests="1", failures="1", skipped="0")
        SubElement(
            SubElement(suite, "testcase", name="nothing was compared"), "failure", message="nothing was compared"
        )
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _suite(root: Element, stage: Stage) -> None:
    skipped = 0 if stage.checks else 1
    counts = {"tests": len(stage.checks) + skipped, "failures": len(stage.broken), "skipped": skipped}
    suite = SubElement(root, "testsuite", {"name": stage.name, **{name: str(count) for name, count in counts.items()}})
    for check in stage.checks:
        _case(suite, stage, check)
    if skipped:
        case = SubElement(suite, "testcase", name="not measured", classname=f"parity.{stage.name}")
        SubElement(case, "skipped", message=stage.reason.translate(NOT_XML))


def _case(suite: Element, stage: Stage, check: Check) -> None:
    name = str(check).translate(NOT_XML)
    case = SubElement(suite, "testcase", name=name, classname=f"parity.{stage.name}")
    if check.problem:
        SubElement(case, "failure", message=check.problem.translate(NOT_XML))
    elif check.found is not None:
        SubElement(case, "system-out").text = decibels(check.found.psnr_db)
