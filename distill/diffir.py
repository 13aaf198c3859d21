"""Distillation of DiffIR: a chain over the prior vector, under the condition of the photo.

The chain is short by design, and its levels follow from its number of steps: a student has its own schedule. The
estimator of the condition stays the teacher's; the transformer learns together with the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
from ..core.training.evaluation.score import EvaluationCase, device_of
from ..core.training.loop.stage import Arrays
from .system import DistillRecipe, DistillSystem, Problem, clean_and_eps

__all__ = ["DiffirSystem"]

BODY_RATE = 0.1  # share of the rate at which the transformer learns


class DiffirSystem(DistillSystem):
    """A "diffir" checkpoint. Raises UsageError for one that does not diffuse."""

    def __init__(self, checkpoint: Checkpoint, source: str, recipe: DistillRecipe) -> None:
        config = from_dict(DiffirConfig, checkpoint.config)
        if not config.steps:
            raise UsageError("this DiffIR was trained without diffusion (steps 0): there is no chain to shorten")
        teacher = Diffir(config)
        checkpoint.fill(teacher)
        super().__init__(checkpoint, source, teacher, recipe.task or checkpoint.facts["task"])
        self.own = self.spread(0)
        self.trained = {"denoiser": 1.0, "dirformer": BODY_RATE}
        self.pictured = {"cpen": 1.0, "dirformer": 1.0}
        self.facts = {"task": self.task}
        self.drawn = DiffirRecipe(steps=1, crop=recipe.crop, task=self.task, model=config)

    def student(self, count: int) -> nn.Module:
        """As in `DistillSystem`."""
        student = Diffir(replace(self.config, steps=count))
        student.load_state_dict(self.teacher.state_dict())
        return student

    def steps(self, count: int) -> Steps:
        """As in `DistillSystem`; the teacher can only sample in its own number of steps."""
        if count not in (0, self.config.steps):
            raise UsageError(
                f"this DiffIR has {self.config.steps} steps; {count} teacher_steps were asked for, leave them out"
            )
        return self.spread(0)

    def student_steps(self, count: int, teacher: Steps) -> Steps:
        """As in `DistillSystem`: the schedule of `count` steps, whose levels are not the teacher's."""
        if count >= teacher.step_count:
            raise UsageError(f"{count} steps were asked for, the teacher has {teacher.step_count}; choose fewer")
        return self.spread(count)

    def spread(self, count: int) -> Steps:
        """As in `DistillSystem`: the schedule of `count` steps; 0 for the teacher's."""
        count = count or self.config.steps
        return Steps.of([*reversed(diffir(count)), 1.0], [(count - 1 - i) / count for i in range(count)])

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """As in `DistillSystem`: "image", "clean", and the "noise" (ipr,) that the chain starts in."""
        pair = draw_pair(pool, crop, self.drawn, rng)
        return {**pair, "noise": rng.standard_normal(self.config.ipr, dtype=np.float32)}

    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """As in `DistillSystem`. The state is the prior vector; the truth is where the teacher's chain ends."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            condition = self.teacher.condition(image).float()
            truth = self.teacher.prior(condition, batch["noise"]).float()

        def predict(model: Diffir, x: Tensor, t: Tensor) -> Tensor:
            assert model.denoiser is not None
            return model.denoiser(condition, t[:, None] / PERIOD, x).float()

        return Problem(
            start=batch["noise"],
            truth=truth,
            clean=batch["clean"],
            predict=predict,
            denoise=lambda model, x, level, t: clean_and_eps(x, predict(model, x, t), level, "x0"),
            sampler=posterior_mean,
            compose=lambda model, state: model.restore(image, state).float(),
        )

    def restored(self, model: Diffir, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """As in `DistillSystem`; the steps are the model's own."""
        del steps
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        return model.restore(image, model.prior(model.condition(image), batch["noise"])).float()

    def restore(self, model: Diffir, steps: Steps, case: EvaluationCase) -> Tensor:
        """As in `DistillSystem`; the steps are the model's own."""
        del steps
        device = device_of(model)
        image, noise = case.image.to(device), torch.from_numpy(normal_vector(0, 0, self.config.ipr)).to(device)
        return composed(image, model(image, noise)).cpu()

    def timed(self, model: Diffir, steps: Steps, side: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """As in `DistillSystem`; the steps are the model's own, whose cost does not depend on the size of the image."""
        del steps
        image, noise = torch.rand(1, self.config.inputs, side, side), torch.randn(1, self.config.ipr)
        condition = torch.rand(1, self.config.ipr)
        return lambda: model(image, noise), lambda: model.prior(condition, noise)
