"""What the figures of students mean, in sentences: against the requirements, and which method is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.training.evaluation.score import MethodFigures

__all__ = ["PSNR_LOSS", "SPEED", "TOLERANCE", "Verdict", "best", "verdicts"]

PSNR_LOSS = 0.2  # dB that few steps may lose
TOLERANCE = {1: 0.10}  # share by which NIQE and SWD may be worse in so many steps; else:
USUAL_TOLERANCE = 0.05
SPEED, USUAL_STEPS = 35, 50  # times faster that one step must be, than so many


@dataclass(frozen=True)
class Verdict:
    """A student's row beside its teacher's."""

    row: MethodFigures
    teacher: MethodFigures
    steps: int
    method: str
    teacher_steps: int

    def change(self, metric: str) -> float:
        """How much higher the student's figure is than the teacher's, as a share of the teacher's."""
        return self.row.values[metric] / self.teacher.values[metric] - 1

    @property
    def psnr(self) -> float:
        """dB over the teacher."""
        return self.row.values["PSNR"] - self.teacher.values["PSNR"]

    @property
    def worst(self) -> float:
        """The larger of the losses in NIQE and SWD, as a share."""
        return max(self.change("NIQE"), self.change("SWD"))

    @property
    def tolerated(self) -> float:
        """The loss that is allowed in so many steps."""
        return TOLERANCE.get(self.steps, USUAL_TOLERANCE)

    @property
    def met(self) -> bool:
        """Whether it looks as the teacher does, and is as close to the truth."""
        return self.psnr >= -PSNR_LOSS and self.worst <= self.tolerated

    @property
    def texture_lost(self) -> bool:
        """A higher PSNR, and a picture that looks worse than is allowed."""
        return self.psnr > 0 and self.worst > self.tolerated


def verdicts(students: Sequence[Verdict], seconds: str, chain: str) -> list[str]:
    """One sentence per student. seconds, chain: the names of the columns of the whole time and of that of the steps."""
    return [_sentence(student, seconds, chain) for student in students]


def _sentence(student: Verdict, seconds: str, chain: str) -> str:
    faster, chain_faster = (student.teacher.values[name] / student.row.values[name] for name in (seconds, chain))
    speed = f"{faster:.1f} times faster"
    if student.steps == 1 and student.teacher_steps >= USUAL_STEPS:
        speed += f" ({SPEED} required: {'met' if faster >= SPEED else 'missed'})"
    speed += f", the chain {chain_faster:.1f} times"
    said = "met" if student.met else "missed: texture is being lost" if student.texture_lost else "missed"
    return (
        f"{student.row.method}: PSNR {student.psnr:+.2f} dB, NIQE {student.change('NIQE'):+.1%}, "
        f"SWD {student.change('SWD'):+.1%} against the teacher, {speed}. "
        f"Within {PSNR_LOSS} dB and {student.tolerated:.0%}: {said}."
    )


def best(students: Sequence[Verdict]) -> list[str]:
    """For each number of steps that several methods were tried for: which is best, by the worse of NIQE and SWD."""
    said = []
    for steps in sorted({student.steps for student in students}, reverse=True):
        tried = [student for student in students if student.steps == steps]
        if len(tried) > 1:
            first = min(tried, key=lambda student: (not student.met, student.worst))
            said.append(f"Best of {len(tried)} to {steps}: {first.method} (worse of NIQE and SWD {first.worst:+.1%}).")
    return said
