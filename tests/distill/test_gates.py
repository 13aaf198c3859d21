from __future__ import annotations

import pytest

from pocketprior.distill.gates import texture_lost

TEACHER = {"PSNR": 30.0, "NIQE": 4.0, "SWD": 0.04}


@pytest.mark.parametrize(
    ("student", "lost"),
    [
        ({"PSNR": 31.0, "NIQE": 4.1, "SWD": 0.041}, False),
        ({"PSNR": 31.0, "NIQE": 4.5, "SWD": 0.030}, True),
        ({"PSNR": 31.0, "NIQE": 3.5, "SWD": 0.050}, True),
        ({"PSNR": 29.0, "NIQE": 4.5, "SWD": 0.050}, False),  # worse in all: not what this gate is about
        (TEACHER, False),
    ],
)
def test_higher_psnr_with_a_worse_look_is_texture_lost(student: dict[str, float], lost: bool) -> None:
    assert texture_lost(student, TEACHER) is lost
