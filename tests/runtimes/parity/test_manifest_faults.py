"""Faults of a manifest: caught by the recording, and as far as that can be without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketprior.runtimes.parity.comparison import CompareOptions, compare
from support.planted_faults import facts
from support.references import accused

FACTS = {
    "levels": {"levels": [0.0, 0.59, 1.0]},
    "times": {"times": [1.0, 0.25]},
    "gain": {"gain": 1.6},
    "residual_scale": {"residual_scale": 0.2},
    "one more step": {"levels": [0.0, 0.3, 0.6, 1.0], "times": [1.0, 0.75, 0.5]},
    "receptive_field of fused": {"receptive_field": {"denoise": 9, "fused": 2, "predict": 9}},
    "tasks": {"tasks": ["noise"]},
    "size": {"size": {"multiple_of": 8, "minimum": 8}},
    "checkpoint": {"made_by": {"checkpoint": "another"}},
}


@pytest.mark.parametrize("name", FACTS)
def test_a_changed_manifest(name: str, known: tuple[Path, Path]) -> None:
    facts(known[0], FACTS[name])
    report = compare(known[0], CompareOptions(against=known[1], threads=1))
    told = "levels" if name == "one more step" else name
    assert accused(report).startswith(f"facts: {told}: the pack says ")
    assert [source.name for source in report.sources] == ["files", "facts"]
    assert not report.ok


@pytest.mark.parametrize("name", ["levels", "gain", "residual_scale", "one more step"])
def test_without_a_recording_the_forms_differ(name: str, known: tuple[Path, Path]) -> None:
    """The split form follows the manifest, the fused one does not."""
    facts(known[0], FACTS[name])
    report = compare(known[0], CompareOptions(threads=1))
    assert accused(report).startswith("forms: fused, against split")
    assert not report.ok
