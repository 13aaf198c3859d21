"""Distillation of DiffIR: a chain over the prior vector, under the condition of the photo.

The chain is short by design, and its levels follow from its number of steps: a student has its own schedule. The
estimator of the condition stays the teacher's; the transformer learns together with the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.models.checkpoints import Checkpoint, from_dict
from ..core.models.diffir import PERIOD, Diffir, DiffirConfig, composed
from ..core.sampling.noise import normal_vector
from ..core.sampling.samplers import posterior_mean
from ..core.sampling.schedule import diffir
from ..core.sampling.steps import Steps
from ..core.training.data.photos import Pool
from ..core.training.diffir.diffir_stage import DiffirRecipe, draw_pair
from ..core.training.evaluation.score import EvaluationCase
from ..core.training.loop.stage import Arrays
from .ddim_step import clean_and_eps
from .distill_stage import DistillRecipe
from .system import Denoised, DistillSystem, Problem, sampler

__all__ = ["DiffirSystem"]

BODY_RATE = 0.1  # share of the rate at which the transformer learns


class DiffirSystem(DistillSystem):
    """A "diffir" checkpoint. Raises UsageError for one that does not diffuse."""

    kind = "diffir"

    def __init__(self, checkpoint: Checkpoint, recipe: DistillRecipe, source: str) -> None:
        self.source = source
        self.config = from_dict(DiffirConfig, checkpoint.config)
        if not self.config.steps:
            raise UsageError("this DiffIR was trained without diffusion (steps 0): there is no chain to shorten")
        self.teacher: Diffir = Diffir(self.config).eval().requires_grad_(False)
        checkpoint.fill(self.teacher)
        self.frozen = nn.ModuleList([self.teacher])
        self.own = _steps(self.config.steps)
        self.trained = {"denoiser": 1.0, "dirformer": BODY_RATE}
        self.pictured = {"cpen": 1.0, "dirformer": 1.0}
        self.task = recipe.task or checkpoint.facts["task"]
        self.multiple_of = self.teacher.multiple_of
        self.drawn = DiffirRecipe(steps=1, crop=recipe.crop, task=self.task, model=self.config)

    def student(self, count: int) -> Diffir:
        """As in `DistillSystem`."""
        student = Diffir(self.student_config(count))
        student.load_state_dict(self.teacher.state_dict())
        return student

    def student_config(self, count: int) -> DiffirConfig:
        """As in `DistillSystem`: the teacher's with `count` steps."""
        return replace(self.config, steps=count)

    def steps(self, count: int) -> Steps:
        """As in `DistillSystem`; the teacher can only sample in its own number of steps."""
        if count not in (0, self.config.steps):
            raise UsageError(
                f"this DiffIR has {self.config.steps} steps; {count} teacher_steps were asked for, leave them out"
            )
        return self.spread(self.config.steps)

    def student_steps(self, count: int, teacher_count: int) -> Steps:
        """As in `DistillSystem`: the schedule of `count` steps, whose levels are not the teacher's."""
        if count >= self.steps(teacher_count).step_count:
            raise UsageError(f"{count} steps were asked for, the teacher has {self.config.steps}; choose fewer")
        return self.spread(count)

    def spread(self, count: int) -> Steps:
        """As in `DistillSystem`: the schedule of `count` steps."""
        return _steps(count or self.config.steps)

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """As in `DistillSystem`: "image", "clean", and the "noise" (ipr,) that the chain starts in."""
        pair = draw_pair(pool, crop, self.drawn, rng)
        return {**pair, "noise": rng.standard_normal(self.config.ipr, dtype=np.float32)}

    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """As in `DistillSystem`. The state is the prior vector; the truth is where the teacher's chain ends."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            condition = self.teacher.condition(image).float()

        def predict(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
            assert isinstance(model, Diffir)
            assert model.denoiser is not None
            return model.denoiser(condition, t[:, None] / PERIOD, x).float()

        def denoise(model: nn.Module, x: Tensor, alpha_bar: Tensor, t: Tensor) -> Denoised:
            return Denoised(*clean_and_eps(x, predict(model, x, t), alpha_bar, "x0"))

        def compose(model: nn.Module, state: Tensor) -> Tensor:
            assert isinstance(model, Diffir)
            return model.restore(image, state).float()

        sample = sampler(predict, posterior_mean)
        with torch.no_grad():
            truth = sample(self.teacher, batch["noise"], self.steps(0))
        return Problem(batch["noise"], truth, batch["clean"], denoise, sample, compose)

    def restored(self, model: nn.Module, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """As in `DistillSystem`; the steps are the model's own."""
        assert isinstance(model, Diffir)
        del steps
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        return model.restore(image, model.prior(model.condition(image), batch["noise"])).float()

    def restore(self, model: nn.Module, steps: Steps, case: EvaluationCase) -> Tensor:
        """As in `DistillSystem`; the steps are the model's own."""
        assert isinstance(model, Diffir)
        del steps
        image = case.image.to(next(model.parameters()).device)
        noise = torch.from_numpy(normal_vector(0, 0, self.config.ipr)).to(image.device)
        return composed(image, model(image, noise)).cpu()

    def timed(self, model: nn.Module, steps: Steps, side: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """As in `DistillSystem`; the steps are the model's own, whose cost does not depend on the size of the image."""
        assert isinstance(model, Diffir)
        del steps
        image, noise = torch.rand(1, self.config.inputs, side, side), torch.randn(1, self.config.ipr)
        condition = torch.rand(1, self.config.ipr)
        return lambda: model(image, noise), lambda: model.prior(condition, noise)

    def facts(self) -> dict[str, Any]:
        """The task."""
        return {"task": self.task}


def _steps(count: int) -> Steps:
    return Steps.of([*reversed(diffir(count)), 1.0], [(count - 1 - i) / count for i in range(count)])
