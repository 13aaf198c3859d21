"""DiffIR as methods of distillation see it: a chain over the prior vector, under the condition of the photo.

The chain is short by design, and its levels follow from its number of steps: a student has its own schedule. The
estimator of the condition stays the teacher's; the transformer learns with the chain.
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
from ..core.models.deploy.specialise import fixed_diffir
from ..core.models.diffir import PERIOD, Diffir, DiffirConfig, composed
from ..core.sampling.noise import normal_vector
from ..core.sampling.samplers import posterior_mean
from ..core.sampling.schedule import diffir
from ..core.sampling.steps import Steps
from ..core.training.data.photos import Pool
from ..core.training.diffir.samples import DiffirRecipe, draw_pair
from ..core.training.evaluation.score import Case
from ..core.training.loop.stage import Arrays
from .recipe import DistillRecipe
from .system import Denoised, Problem

__all__ = ["DiffirSystem"]

BODY_RATE = 0.1  # share of the rate at which the transformer learns


class DiffirSystem:
    """A "diffir" checkpoint; see `System`. Raises UsageError for one that does not diffuse."""

    kind = "diffir"

    def __init__(self, checkpoint: Checkpoint, recipe: DistillRecipe, source: str) -> None:
        self.source = source
        self.config = from_dict(DiffirConfig, checkpoint.config)
        if not self.config.steps:
            raise UsageError("this DiffIR was trained without diffusion (steps 0): there is no chain to shorten")
        self.teacher: Diffir = Diffir(self.config).eval().requires_grad_(False)
        checkpoint.fill(self.teacher)
        self.frozen = nn.ModuleList([self.teacher])
        self.own: Steps | None = _steps(self.config.steps)
        self.trained = {"denoiser": 1.0, "dirformer": BODY_RATE}
        self.pictured = {"cpen": 1.0, "dirformer": 1.0}
        self.task = recipe.task or checkpoint.facts["task"]
        self.multiple_of, self.thumbnail_side = self.teacher.multiple_of, 0
        self.drawn = DiffirRecipe(steps=1, crop=recipe.crop, task=self.task, model=self.config)

    def student(self, count: int) -> Diffir:
        """As in `System`."""
        student = Diffir(self.student_config(count))
        student.load_state_dict(self.teacher.state_dict())
        return student

    def student_config(self, count: int) -> DiffirConfig:
        """As in `System`: the teacher's with `count` steps."""
        return replace(self.config, steps=count)

    def steps(self, count: int) -> Steps:
        """As in `System`; the teacher cannot be sampled in another number of steps than its own."""
        own = self.config.steps
        if count not in (0, own):
            raise UsageError(f"this DiffIR has {own} steps; {count} teacher_steps were asked for, leave them out")
        return _steps(own)

    def student_steps(self, count: int, teacher_count: int) -> Steps:
        """As in `System`: the schedule of `count` steps, which is not a part of the teacher's."""
        if count >= self.steps(teacher_count).step_count:
            raise UsageError(f"{count} steps were asked for, the teacher has {self.config.steps}; choose fewer")
        return _steps(count)

    def levels(self) -> Steps:
        """As in `System`."""
        return self.steps(0)

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """ "image", "clean", and the noise (ipr,) that the chain starts in."""
        pair = draw_pair(pool, crop, self.drawn, rng)
        return {**pair, "noise": rng.standard_normal(self.config.ipr, dtype=np.float32)}

    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """As in `System`. The state is the prior vector; the truth is where the teacher's chain ends."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            condition = self.teacher.condition(image).float()

        def predict(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
            assert isinstance(model, Diffir)
            assert model.denoiser is not None
            return model.denoiser(condition, t[:, None] / PERIOD, x).float()

        def sample(model: nn.Module, start: Tensor, steps: Steps, passed: list[Tensor] | None = None) -> Tensor:
            def denoise(x: Tensor, step: int) -> Tensor:
                if passed is not None:
                    passed.append(x)
                return predict(model, x, x.new_full((len(x),), steps.times[step]))

            return posterior_mean(denoise, start, steps.levels)

        def denoise(model: nn.Module, x: Tensor, bar: Tensor, t: Tensor) -> Denoised:
            clean = predict(model, x, t)
            return Denoised(clean, (x - bar[:, None].sqrt() * clean) / (1 - bar[:, None]).sqrt())

        def compose(model: nn.Module, state: Tensor) -> Tensor:
            assert isinstance(model, Diffir)
            return model.restore(image, state).float()

        with torch.no_grad():
            truth = sample(self.teacher, batch["noise"], self.steps(0))
        return Problem(batch["noise"], truth, batch["clean"], denoise, sample, compose)

    def restored(self, model: nn.Module, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """As in `System`; the steps are the model's own."""
        assert isinstance(model, Diffir)
        del steps
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        return model.restore(image, model.prior(model.condition(image), batch["noise"])).float()

    def restore(self, model: nn.Module, steps: Steps, case: Case) -> Tensor:
        """As in `System`; the steps are the model's own."""
        assert isinstance(model, Diffir)
        del steps
        image = case.image.to(next(model.parameters()).device)
        noise = torch.from_numpy(normal_vector(0, 0, self.config.ipr)).to(image.device)
        return composed(image, model(image, noise)).cpu()

    def timed(self, model: nn.Module, steps: Steps, side: int) -> Callable[[], Tensor]:
        """As in `System`."""
        assert isinstance(model, Diffir)
        del steps
        fixed = fixed_diffir(model)
        image, noise = torch.rand(1, self.config.inputs, side, side), torch.randn(1, self.config.ipr)
        return lambda: fixed(image, noise)

    def timed_chain(self, model: nn.Module, steps: Steps, side: int) -> Callable[[], Tensor]:
        """As in `System`: a vector is diffused, whatever the size of the picture."""
        assert isinstance(model, Diffir)
        del side
        fixed = fixed_diffir(model)
        condition, noise = torch.rand(1, self.config.ipr), torch.randn(1, self.config.ipr)
        return lambda: posterior_mean(lambda x, step: fixed.denoise(x, condition, step), noise, steps.levels)

    def facts(self) -> dict[str, Any]:
        """The task."""
        return {"task": self.task}


def _steps(count: int) -> Steps:
    return Steps.of([*reversed(diffir(count)), 1.0], [(count - 1 - i) / count for i in range(count)])
