"""What a student is judged by: PSNR and, always beside it, whether it still looks like a photo.

A student of a texture prior that loses texture gains PSNR: the mean of all plausible textures is closest to the truth.
So a PSNR above the teacher's with a worse NIQE or SWD is not progress, and is said.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..core.sampling.steps import Steps
from ..core.training.data.photos import Pool
from ..core.training.evaluation.score import EvaluationCase, cases, measure, side_by_side, square
from ..core.training.loop.stage import Validation
from .system import System

__all__ = ["LOST", "TEXTURE_LOST", "Gates", "texture_lost"]

PHOTOS, SIDE = 4, 256  # held-back photos that gates look at, and the side of their centre squares, pixels
JUDGED = ("PSNR", "NIQE", "SWD")
WORSE = 1.05  # times the teacher's NIQE or SWD: what counts as worse
LOST = "val_texture_lost"
TEXTURE_LOST = "texture is being lost: PSNR is above the teacher's, NIQE or SWD is worse"


def texture_lost(student: Mapping[str, float], teacher: Mapping[str, float]) -> bool:
    """Whether PSNR (dB, higher is better) rose over the teacher's while NIQE or SWD (lower is better) got worse."""
    worse = any(student[name] > WORSE * teacher[name] for name in ("NIQE", "SWD"))
    return worse and student["PSNR"] > teacher["PSNR"]


class Gates:
    """The same held-back photos for teacher and student."""

    def __init__(self, system: System, pool: Pool, teacher: Steps, student: Steps) -> None:
        self.system, self.steps, self.teacher_steps = system, student, teacher
        self.cases = cases([square(photo, SIDE) for photo in pool.photos[:PHOTOS]], system.task)
        self.reference: dict[str, float] = {}
        self.verdict: dict[str, float] = {}

    def judge(self, model: nn.Module) -> Validation:
        """The student's figures, the teacher's, and whether texture is being lost (1 or 0)."""
        if not self.reference:
            self.reference = self._figures(self.system.teacher, self.teacher_steps)
        found = self._figures(model, self.steps)
        lost = texture_lost(found, self.reference)
        figures = {f"val_{name.lower()}": found[name] for name in JUDGED}
        figures |= {f"val_teacher_{name.lower()}": self.reference[name] for name in JUDGED}
        self.verdict = {**figures, LOST: float(lost)}
        return Validation(self.verdict, {"damaged_teacher_student_clean": self._picture(model, self.cases[0])})

    def _figures(self, model: nn.Module, steps: Steps) -> dict[str, float]:
        row = measure("held back", lambda case: self.system.restore(model, steps, case), self.cases)
        return {name: row.values[name] for name in JUDGED}

    def _picture(self, model: nn.Module, case: EvaluationCase) -> Tensor:
        teacher = self.system.restore(self.system.teacher, self.teacher_steps, case)
        return side_by_side(case.image, teacher, self.system.restore(model, self.steps, case), case.clean)
