"""Distillation as a stage of the training loop: recipe, method, gates, and what all methods share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from numpy.random import Generator
from torch import Tensor, nn

from ..core.sampling.steps import Steps
from ..core.training.data.photos import Data, Pool
from ..core.training.dtpm.validation import side_by_side
from ..core.training.evaluation.score import cases, measure, square
from ..core.training.loop.recipe import Recipe
from ..core.training.loop.stage import Arrays, Validation
from .limits import texture_lost
from .system import DistillSystem

__all__ = ["LOST", "DistillMethod", "DistillRecipe", "DistillStage", "Gates", "Rows"]

GATE_PHOTOS, GATE_SIDE = 4, 256  # held-back photos that gates look at, and the side of their centre squares, pixels
JUDGED = ("PSNR", "NIQE", "SWD")
LOST = "val_texture_lost"


@dataclass(frozen=True)
class DistillRecipe(Recipe):
    """How to make a student that samples in few steps."""

    sampling_steps: int = 4  # of the student
    teacher_steps: int = 0  # of the teacher's sampler; 0: its own, if it is a student itself, else TEACHER_STEPS
    task: str = ""  # what damages the photos; "": the task that the teacher was trained for
    prior_rate: float = 1.0  # DTPM: share of the rate at which the prior learns; 0 keeps it as all tasks share it

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("sampling_steps")


class DistillMethod(NamedTuple):
    """A method of distillation; each module of a method has one, called METHOD."""

    recipe: DistillRecipe  # the default
    systems: tuple[str, ...]  # kinds of checkpoints that it can distil
    build: Callable[[Any, DistillSystem, Data, Path, torch.device], DistillStage]  # (recipe, ..., run folder, device)


class Rows(Protocol):
    """Samples that were computed before the training."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def row(self, index: int) -> Arrays:
        """One of them."""
        ...


class DistillStage:
    """Trains a student of the system's teacher; see `Stage`.

    Args:
        method: the name that checkpoints carry.
        system: the teacher.
        recipe: how to train.
        data: training photos, and held-back ones for the gates.
        loss_of: (teacher, student, problem, batch) -> figures, as `Stage.loss`.
        rows: samples to learn from; without them crops are drawn anew.
        steps: of the student, if they are not some of the teacher's.
    """

    def __init__(
        self,
        method: str,
        system: DistillSystem,
        recipe: DistillRecipe,
        data: Data,
        loss_of: Callable[..., dict[str, Tensor]],
        rows: Rows | None = None,
        steps: Steps | None = None,
    ) -> None:
        self.method, self.system, self.recipe, self.loss_of, self.rows = method, system, recipe, loss_of, rows
        self.steps = steps or system.student_steps(recipe.sampling_steps, recipe.teacher_steps)
        self.kind, self.config = system.kind, system.student_config(recipe.sampling_steps)
        self.model: nn.Module = system.student(recipe.sampling_steps)
        self.trained, self.frozen = system.trained, system.frozen
        self.gates = Gates(system, data.val, system.steps(recipe.teacher_steps), self.steps)

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """As in `Stage`: a sample of the system, or one of `rows`."""
        if self.rows is not None:
            return self.rows.row(int(rng.integers(self.rows.count)))
        return self.system.draw(pool, crop, rng)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """As in `Stage`: the method's loss."""
        return self.loss_of(self.system.teacher, self.model, self.system.problem(batch), batch)

    def validate(self, model: nn.Module) -> Validation:
        """PSNR, NIQE and SWD on held-back photos, with the teacher's; see `Gates`."""
        return self.gates.judge(model)

    def facts(self) -> dict[str, Any]:
        """The system's facts, the student's steps, how it was made, and the figures of the gates."""
        return {
            **self.system.facts(),
            "levels": list(self.steps.levels),
            "times": list(self.steps.times),
            "steps": self.steps.step_count,
            "method": self.method,
            "teacher": self.system.source,
            "teacher_steps": self.gates.teacher_steps.step_count,
            "gates": self.gates.verdict,
        }


class Gates:
    """PSNR and, always with it, NIQE and SWD of teacher and student on the same held-back photos."""

    def __init__(self, system: DistillSystem, pool: Pool, teacher: Steps, student: Steps) -> None:
        self.system, self.steps, self.teacher_steps = system, student, teacher
        self.cases = cases([square(photo, GATE_SIDE) for photo in pool.photos[:GATE_PHOTOS]], system.task)
        self.reference: dict[str, float] = {}
        self.verdict: dict[str, float] = {}

    def judge(self, model: nn.Module) -> Validation:
        """The student's figures, the teacher's, and whether texture is being lost (1 or 0)."""
        if not self.reference:
            self.reference = self._figures(self.system.teacher, self.teacher_steps)
        found = self._figures(model, self.steps)
        figures = {f"val_{name.lower()}": found[name] for name in JUDGED}
        figures |= {f"val_teacher_{name.lower()}": self.reference[name] for name in JUDGED}
        self.verdict = {**figures, LOST: float(texture_lost(found, self.reference))}
        case = self.cases[0]
        teacher = self.system.restore(self.system.teacher, self.teacher_steps, case)
        student = self.system.restore(model, self.steps, case)
        shown = side_by_side(case.image, teacher, student, case.clean)
        return Validation(self.verdict, {"damaged_teacher_student_clean": shown})

    def _figures(self, model: nn.Module, steps: Steps) -> dict[str, float]:
        row = measure("held back", lambda case: self.system.restore(model, steps, case), self.cases)
        return {name: row.values[name] for name in JUDGED}
