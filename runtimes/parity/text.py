"""A report as a table for a terminal."""

from __future__ import annotations

import math

from .findings import Check, Report, Stage
from .limits import Limit

__all__ = ["allowed", "decibels", "lines", "verdict"]

SHOWN = 3  # broken checks of a stage; the rest are counted


def lines(report: Report) -> list[str]:
    """The whole, some twenty lines."""
    return [
        f"{report.pack} ({report.model}) in {report.runtime}",
        f"precision: {report.precision}; arithmetic: {report.arithmetic}",
        f"reference: {report.reference}",
        *(f"  {run}" for run in report.runs),
        "",
        *(line for stage in report.stages for line in _stage(stage)),
        "",
        *_budget(report),
        *_layers(report),
        *report.notes,
        verdict(report),
    ]


def verdict(report: Report) -> str:
    """One sentence."""
    if report.first is not None:
        stage, check = report.first
        return f"FAIL  first at the stage '{stage.name}': {_told(check)}"
    if not report.ok:
        return "FAIL  nothing was compared"
    return f"ok    {report.compared} arrays were compared, all within their limits"


def decibels(value: float) -> str:
    """A PSNR in words."""
    if math.isinf(value):
        return "equal" if value > 0 else "not finite"
    return f"{value:.1f} dB"


def allowed(limit: Limit | None) -> str:
    """What a stage is held to."""
    return "" if limit is None else f">= {limit.psnr_db:g} dB"


def _stage(stage: Stage) -> list[str]:
    if not stage.checks:
        return [f"{stage.name:<13}not measured: {stage.reason}"]
    worst = stage.worst
    changes = [check for check in stage.checks if check.change_db is not None]
    told = f"  {min(changes, key=lambda check: check.change_db or 0).place}" if changes else ""
    if worst is not None and worst.found is not None:
        told = f"{decibels(worst.found.psnr_db):>10}  at {worst}"
    head = f"{stage.name:<13}{stage.status:<8}{len(stage.checks):>5}  {allowed(stage.limit):<10}{told}".rstrip()
    broken = [f"    {_told(check)}" for check in stage.broken[:SHOWN]]
    left = len(stage.broken) - len(broken)
    return [head, *broken, *([f"    and {left} more"] if left else [])]


def _told(check: Check) -> str:
    return f"{check}: {check.problem}"


def _budget(report: Report) -> list[str]:
    if report.budget is None:
        return []
    shares = ", ".join(f"{stage} {levels:.2g}" for stage, levels in report.budget.stages.items())
    return [
        f"error of the final pictures, root mean square in levels of 255: {report.budget.total:.2g} in all; {shares}; "
        f"unexplained rest {report.budget.rest:+.2g}"
    ]


def _layers(report: Report) -> list[str]:
    return [
        f"layer {layer.graph} {layer.name} ({layer.operator}{f', {layer.module}' if layer.module else ''}): "
        f"{decibels(layer.found.psnr_db)}{'  FIRST TO BREAK' if layer.broken else ''}"
        for layer in report.layers
    ]
