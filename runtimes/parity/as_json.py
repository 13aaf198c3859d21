"""A report for programs: JSON, without infinities and without pictures."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from .findings import Check, Report, Stage

__all__ = ["as_json"]

FACTS = ("pack", "model", "runtime", "precision", "arithmetic", "reference")


def as_json(report: Report) -> str:
    """One object; a PSNR of equal arrays is null."""
    first = report.first
    tree = {
        "ok": report.ok,
        "compared": report.compared,
        "first": None if first is None else {"stage": first[0].name, **_check(first[1])},
        **{
            name: getattr(report, name) for name in ("pack", "model", "runtime", "precision", "arithmetic", "reference")
        },
        "environment": dict(report.environment),
        "runs": list(report.runs),
        "stages": [_stage(stage) for stage in report.stages],
        "budget": None if report.budget is None else asdict(report.budget),
        "pictures": [{"case": p.case, "form": p.form, **asdict(p.found)} for p in report.pictures],
        "layers": [{**layer._asdict(), "found": asdict(layer.found)} for layer in report.layers],
        "notes": list(report.notes),
    }
    return json.dumps(_finite(tree), indent=1, allow_nan=False)


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "status": stage.status,
        "reason": stage.reason,
        "limit": None if stage.limit is None else stage.limit._asdict(),
        "checks": [_check(check) for check in stage.checks],
    }


def _check(check: Check) -> dict[str, Any]:
    found = {} if check.found is None else asdict(check.found)
    return {"graph": check.graph, "place": check.place, "problem": check.problem, **found, **_change(check)}


def _change(check: Check) -> dict[str, Any]:
    return {} if check.change_db is None else {"change_db": check.change_db}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
