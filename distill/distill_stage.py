"""Distillation as a stage of the training loop: recipe, method, gates, and the parts that all methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from numpy.random import Generator
from torch import Tensor, nn

from ..core.sampling.steps import Steps
from ..core.training.data.photos import Pool, TrainingData
from ..core.training.evaluation.score import cases, measure, side_by_side, square
from ..core.training.loop.recipe import Recipe
from ..core.training.loop.stage import Arrays, Validation
from .limits import texture_lost
from .system import DistillSystem

__all__ = ["LOST", "DistillMethod", "DistillRecipe", "DistillStage", "Gates", "Rows", "weighted_sum"]

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
    # (recipe, teacher, photos, run folder, device) -> stage
    build: Callable[
        [Any, DistillSystem, TrainingData, Path, torch.device], DistillStage
    ]  # (recipe, ..., run folder, device)


class Rows(Protocol):
    """Samples that were computed before the training."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def row(self, index: int) -> Arrays:
        """One of them."""
        ...


class DistillStage(ABC):
    """Trains a student of the system's teacher; see `TrainingStage`. A method adds `loss`."""

    method: ClassVar[str]  # the name in the facts of its checkpoints
    rows: Rows | None = None  # samples to learn from; without them crops are drawn anew

    def __init__(
        self, recipe: DistillRecipe, system: DistillSystem, data: TrainingData, steps: Steps | None = None
    ) -> None:
        """steps: of the student, if they are not some of the teacher's."""
        self.recipe, self.system = recipe, system
        self.steps = steps or system.student_steps(recipe.sampling_steps, recipe.teacher_steps)
        self.kind, self.config = system.kind, system.student_config(recipe.sampling_steps)
        self.model: nn.Module = system.student(recipe.sampling_steps)
        self.trained, self.frozen = system.trained, system.frozen
        self.gates = Gates(system, data.val, system.steps(recipe.teacher_steps), self.steps)

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """As in `TrainingStage`: a sample of the system, or one of `rows`."""
        if self.rows is not None:
            return self.rows.row(int(rng.integers(self.rows.count)))
        return self.system.draw(pool, crop, rng)

    @abstractmethod
    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """As in `TrainingStage`."""

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


def weighted_sum(figures: dict[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The figures, with their sum by weight as "loss"."""
    terms = [weights[name] * value for name, value in figures.items()]
    return {"loss": torch.stack(terms).sum(), **figures}


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
