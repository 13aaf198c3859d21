from __future__ import annotations

from pathlib import Path

import pytest
from small import CONFIG, small_model

from pocketprior.core.errors import CheckpointError
from pocketprior.core.models import checkpoints
from pocketprior.distill.students import collected

FACTS = {"task": "cleanup", "method": "trajectory", "levels": [0.0, 1.0], "times": [1.0], "steps": 1, "step": 9}


def save(folder: Path, name: str, **facts: object) -> None:
    (folder / name).mkdir(parents=True)
    changed = {k: v for k, v in {**FACTS, **facts}.items() if v is not None}
    checkpoints.save(folder / name / "model.safetensors", "dtpm", CONFIG, small_model().state_dict(), changed)


def test_students_are_found_most_steps_first(tmp_path: Path) -> None:
    save(tmp_path, "a", steps=1)
    save(tmp_path, "b", steps=4, method="unrolled")
    save(tmp_path, "c", steps=4)
    assert [(e.name, e.method) for e in collected(tmp_path, "dtpm")] == [
        ("c", "trajectory"),
        ("b", "unrolled"),
        ("a", "trajectory"),
    ]
    assert collected(tmp_path, "gen2res") == []


def test_teacher_among_the_students_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "a", method=None)
    with pytest.raises(CheckpointError, match="does not say how it was distilled"):
        collected(tmp_path, "dtpm")
