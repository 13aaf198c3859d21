"""Each limit holds just inside of it and is breached just outside."""

from __future__ import annotations

import pytest

from pocketprior.core.training.evaluation.score import MethodFigures
from pocketprior.distill.limits import (
    ONE_STEP_TOLERANCE,
    PSNR_LOSS,
    SPEEDUP,
    SPEEDUP_STEPS,
    USUAL_TOLERANCE,
    texture_lost,
)
from pocketprior.distill.students import StudentFigures

TEACHER = {"PSNR": 31.0, "NIQE": 4.0, "SWD": 0.04, "s/MP": 70.0, "chain s/MP": 70.0}
NEAR = 1e-6  # beyond float rounding


def student(steps: int = 4, **changes: float) -> StudentFigures:
    row, teacher = MethodFigures("student", {**TEACHER, **changes}), MethodFigures("teacher", TEACHER)
    return StudentFigures("x", steps, row, teacher, SPEEDUP_STEPS)


def test_psnr_may_fall_by_so_much() -> None:
    assert student(PSNR=TEACHER["PSNR"] - PSNR_LOSS + NEAR).met
    assert not student(PSNR=TEACHER["PSNR"] - PSNR_LOSS - NEAR).met


@pytest.mark.parametrize(("steps", "tolerance"), [(1, ONE_STEP_TOLERANCE), (2, USUAL_TOLERANCE), (4, USUAL_TOLERANCE)])
@pytest.mark.parametrize("metric", ["NIQE", "SWD"])
def test_niqe_and_swd_may_rise_by_so_much(metric: str, steps: int, tolerance: float) -> None:
    limit = TEACHER[metric] * (1 + tolerance)
    assert student(steps, **{metric: limit - NEAR}).met
    assert not student(steps, **{metric: limit + NEAR}).met


def test_one_step_must_be_so_much_faster() -> None:
    seconds = TEACHER["s/MP"] / SPEEDUP
    assert f"({SPEEDUP} required: met)" in student(1, **{"s/MP": seconds - NEAR}).sentence()
    assert f"({SPEEDUP} required: missed)" in student(1, **{"s/MP": seconds + NEAR}).sentence()
    assert "required" not in student(2, **{"s/MP": seconds}).sentence()


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"PSNR": 32.0, "NIQE": 4.1, "SWD": 0.041}, False),
        ({"PSNR": 32.0, "NIQE": 4.5, "SWD": 0.030}, True),
        ({"PSNR": 32.0, "NIQE": 3.5, "SWD": 0.050}, True),
        ({"PSNR": 30.0, "NIQE": 4.5, "SWD": 0.050}, False),  # worse in all: not a loss that PSNR hides
        ({}, False),
    ],
)
def test_higher_psnr_with_a_worse_look_is_texture_lost(changes: dict[str, float], lost: bool) -> None:
    assert texture_lost({**TEACHER, **changes}, TEACHER) is lost
