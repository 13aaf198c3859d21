"""Distillation as a stage of the training loop: what all methods share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.random import Generator
from torch import Tensor, nn

from ..core.sampling.steps import Steps
from ..core.training.data.photos import Data, Pool
from ..core.training.loop.stage import Arrays, Aside, Validation
from .gates import Gates
from .recipe import DistillRecipe
from .system import System
from .trajectories import Trajectories

__all__ = ["AssistedStage", "DistillStage", "Loss"]

Loss = Callable[..., dict[str, Tensor]]  # of (teacher, student, problem, batch), as `Stage.loss` of the batch


class DistillStage:
    """Trains a student of the system's teacher.

    method: the name that checkpoints carry. loss_of: (teacher, student, problem, batch) -> figures, as `Stage.loss`.
    paths: crops to learn from, with the teacher's trajectories; without them crops are drawn anew. steps: of the
    student, if they are not some of the teacher's.
    """

    def __init__(
        self,
        method: str,
        system: System,
        recipe: DistillRecipe,
        data: Data,
        loss_of: Loss,
        paths: Trajectories | None = None,
        steps: Steps | None = None,
    ) -> None:
        self.method, self.system, self.recipe, self.loss_of = method, system, recipe, loss_of
        self.paths = paths
        self.steps = steps or system.student_steps(recipe.sampling_steps, recipe.teacher_steps)
        self.kind, self.config = system.kind, system.student_config(recipe.sampling_steps)
        self.model: nn.Module = system.student(recipe.sampling_steps)
        self.trained, self.frozen = system.trained, system.frozen
        self.gates = Gates(system, data.val, system.steps(recipe.teacher_steps), self.steps)

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """What the system draws; with `paths`, what it drew for one of them, and the teacher's states."""
        if self.paths is not None:
            return self.paths.row(int(rng.integers(self.paths.count)))
        return self.system.draw(pool, crop, rng)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The method's."""
        return self.loss_of(self.system.teacher, self.model, self.system.problem(batch), batch)

    def validate(self, model: nn.Module) -> Validation:
        """PSNR, NIQE and SWD on held-back photos beside the teacher's; see `Gates`."""
        return self.gates.judge(model)

    def facts(self) -> dict[str, Any]:
        """The system's, the student's steps, how it was made, and what the gates found."""
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


class AssistedStage(DistillStage):
    """A stage whose method learns something beside the student; see `Assisted`."""

    aside: Aside
