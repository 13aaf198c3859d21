"""Gen2Res as methods of distillation see it: a chain that starts in the noised photo, at a middle level.

The teacher's sampler is DDIM, which is deterministic; a student's share of the variance is not learnt.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.models.checkpoints import Checkpoint
from ..core.models.deploy.specialise import fixed_gen2res
from ..core.models.gen2res import Denoiser, Gen2ResConfig, build, restore
from ..core.sampling.noise import normal
from ..core.sampling.samplers import clipped, ddim, noised
from ..core.sampling.schedule import ddpm, strided
from ..core.sampling.steps import Steps, own_steps, thinned
from ..core.training.data.photos import Pool, planar
from ..core.training.evaluation.score import Case
from ..core.training.loop.stage import Arrays
from .paths import split
from .recipe import DistillRecipe
from .system import ONLY_OWN, Denoised, Problem

__all__ = ["START", "USUAL_STEPS", "Gen2ResSystem"]

START = 200  # level K of 1000 that a photo is noised to, the paper's
USUAL_STEPS = 50  # of a teacher that is no student
TASK = "noise"  # what damages photos unless the recipe says otherwise


class Gen2ResSystem:
    """A "gen2res" checkpoint; see `System`."""

    kind = "gen2res"

    def __init__(self, checkpoint: Checkpoint, recipe: DistillRecipe, source: str) -> None:
        self.source = source
        self.teacher: Denoiser = build(checkpoint)
        self.config = self.teacher.config
        self.frozen = nn.ModuleList([self.teacher])
        self.trained = self.pictured = {"": 1.0}
        self.task = recipe.task or TASK
        self.multiple_of, self.thumbnail_side = self.teacher.multiple_of, 0
        self.own = own_steps(checkpoint.facts)
        self.constrained = {k: v for k, v in checkpoint.facts.items() if k == "constrained"}

    def student(self, count: int) -> Denoiser:
        """As in `System`."""
        del count
        return copy.deepcopy(self.teacher)

    def student_config(self, count: int) -> Gen2ResConfig:
        """As in `System`: the teacher's."""
        del count
        return self.config

    def steps(self, count: int) -> Steps:
        """As in `System`."""
        if self.own:
            return thinned(self.own, count or self.own.step_count)
        return Steps.of(*strided(count or USUAL_STEPS, ddpm(), START))

    def student_steps(self, count: int, teacher_count: int) -> Steps:
        """As in `System`."""
        return thinned(self.steps(teacher_count), count)

    def levels(self) -> Steps:
        """As in `System`."""
        if self.own:
            raise UsageError(ONLY_OWN)
        return Steps.of(*strided(START, ddpm(), START))

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """clean, damaged and noise (3, crop, crop)."""
        cut = pool.crop(crop, rng, self.task)
        clean = planar(cut.clean)
        return {
            "clean": clean,
            "damaged": planar(cut.damaged),
            "noise": rng.standard_normal(clean.shape, dtype=np.float32),
        }

    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """As in `System`. The state is the picture in [-1, 1]; the chain starts in the noised damaged picture."""
        first = self.steps(0).levels[0]
        start = noised(batch["damaged"] * 2 - 1, batch["noise"], first)

        def predict(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
            return model(x, t).float()[:, :3]

        def sample(model: nn.Module, start: Tensor, steps: Steps, passed: list[Tensor] | None = None) -> Tensor:
            def denoise(x: Tensor, step: int) -> Tensor:
                if passed is not None:
                    passed.append(x)
                return predict(model, x, x.new_full((len(x),), steps.times[step]))

            return ddim(denoise, start, steps.levels, "eps", clip=clipped)

        def denoise(model: nn.Module, x: Tensor, bar: Tensor, t: Tensor) -> Denoised:
            """With the clean picture limited as the sampler limits it, but a gradient that does not end there."""
            clean, _ = split(x, predict(model, x, t), bar, "eps")
            limited = clean + (clipped(clean) - clean).detach()
            return Denoised(*split(x, limited, bar, "x0"))

        return Problem(
            start=start.contiguous(memory_format=torch.channels_last),
            truth=batch["clean"] * 2 - 1,
            clean=batch["clean"],
            denoise=denoise,
            sample=sample,
            compose=lambda _, state: state / 2 + 0.5,
        )

    def restored(self, model: nn.Module, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """As in `System`."""
        problem = self.problem(batch)
        return problem.compose(model, problem.sample(model, problem.start, steps))

    def restore(self, model: nn.Module, steps: Steps, case: Case) -> Tensor:
        """As in `System`."""
        assert isinstance(model, Denoiser)
        height, width = case.true.shape[:2]
        image = case.image.to(next(model.parameters()).device)

        def noise(step: int) -> Tensor:
            field = normal(0, step, (0, height), (0, width))
            return torch.from_numpy(np.ascontiguousarray(field)).to(image.device)

        return restore(model, image, noise, *steps, "ddim").cpu()

    def timed(self, model: nn.Module, steps: Steps, side: int) -> Callable[[], Tensor]:
        """As in `System`."""
        assert isinstance(model, Denoiser)
        fixed = fixed_gen2res(model, steps.times)
        start = torch.randn(1, 3, side, side)

        def restored() -> Tensor:
            return ddim(lambda x, step: fixed[step](x)[:, :3], start, steps.levels, "eps", clip=clipped)

        return restored

    def timed_chain(self, model: nn.Module, steps: Steps, side: int) -> Callable[[], Tensor]:
        """As in `System`: the restoration is the chain."""
        return self.timed(model, steps, side)

    def facts(self) -> dict[str, Any]:
        """Whether the teacher knew an album, and the sampler that the steps are of."""
        return {**self.constrained, "sampler": "ddim", "start": round(self.steps(0).times[0] * len(ddpm()))}
