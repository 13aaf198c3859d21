"""Distillation of Gen2Res: a chain that starts in the noised photo, at a middle level.

The teacher's sampler is DDIM, which is deterministic; students do not learn the share of the variance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ..core.models.checkpoints import Checkpoint
from ..core.models.gen2res import Denoiser, build, merged, predictions, restore
from ..core.sampling.noise import normal
from ..core.sampling.samplers import clipped, ddim, noised
from ..core.sampling.schedule import ddpm, strided
from ..core.sampling.steps import Steps, own_steps
from ..core.training.data.photos import Pool
from ..core.training.evaluation.score import EvaluationCase
from ..core.training.loop.stage import Arrays
from .ddim_step import clean_and_eps
from .distill_stage import DistillRecipe
from .system import Denoised, DistillSystem, Problem, photo_arrays, sampler

__all__ = ["START", "Gen2ResSystem"]

START = 200  # level K of 1000 that a photo is noised to, the paper's
USUAL_TASK = "noise"  # what damages photos unless the recipe says otherwise


class Gen2ResSystem(DistillSystem):
    """A "gen2res" checkpoint."""

    kind = "gen2res"

    def __init__(self, checkpoint: Checkpoint, recipe: DistillRecipe, source: str) -> None:
        self.source = source
        self.teacher: Denoiser = build(checkpoint)
        self.config = self.teacher.config
        self.frozen = nn.ModuleList([self.teacher])
        self.trained = self.pictured = {"": 1.0}
        self.task = recipe.task or USUAL_TASK
        self.multiple_of = self.teacher.multiple_of
        self.own = own_steps(checkpoint.facts)
        self.constrained = {k: v for k, v in checkpoint.facts.items() if k == "constrained"}

    def spread(self, count: int) -> Steps:
        """As in `DistillSystem`: of the levels up to START."""
        return Steps.of(*strided(count or START, ddpm(), START))

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """As in `DistillSystem`: "clean", "damaged" and "noise" (3, crop, crop)."""
        return photo_arrays(pool, crop, rng, self.task)[1]

    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """As in `DistillSystem`. The state is the image in [-1, 1]; the chain starts in the noised damaged image."""
        first = self.steps(0).levels[0]
        start = noised(batch["damaged"] * 2 - 1, batch["noise"], first)

        def predict(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
            return model(x, t).float()[:, :3]

        def denoise(model: nn.Module, x: Tensor, alpha_bar: Tensor, t: Tensor) -> Denoised:
            """With the clean image limited as the sampler limits it, but with a gradient beyond the limits too."""
            clean, _ = clean_and_eps(x, predict(model, x, t), alpha_bar, "eps")
            limited = clean + (clipped(clean) - clean).detach()
            return Denoised(*clean_and_eps(x, limited, alpha_bar, "x0"))

        return Problem(
            start=start.contiguous(memory_format=torch.channels_last),
            truth=batch["clean"] * 2 - 1,
            clean=batch["clean"],
            denoise=denoise,
            sample=sampler(predict, partial(ddim, predicts="eps", clip=clipped)),
            compose=lambda _, state: state / 2 + 0.5,
        )

    def restored(self, model: nn.Module, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """As in `DistillSystem`."""
        problem = self.problem(batch)
        return problem.compose(model, problem.sample(model, problem.start, steps))

    def restore(self, model: nn.Module, steps: Steps, case: EvaluationCase) -> Tensor:
        """As in `DistillSystem`."""
        assert isinstance(model, Denoiser)
        height, width = case.true.shape[:2]
        image = case.image.to(next(model.parameters()).device)

        def noise(step: int) -> Tensor:
            field = normal(0, step, (0, height), (0, width))
            return torch.from_numpy(np.ascontiguousarray(field)).to(image.device)

        return restore(model, image, noise, *steps, "ddim").cpu()

    def timed(self, model: nn.Module, steps: Steps, side: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """As in `DistillSystem`: the restoration is the chain."""
        assert isinstance(model, Denoiser)
        predict = predictions(merged(model).eval(), steps.times)
        start = torch.randn(1, 3, side, side)

        def chain() -> Tensor:
            return ddim(lambda x, step: predict(x, step)[0], start, steps.levels, "eps", clip=clipped)

        return chain, chain

    def facts(self) -> dict[str, Any]:
        """Whether the teacher knew an album, and the sampler that the steps belong to."""
        return {**self.constrained, "sampler": "ddim", "start": round(self.steps(0).times[0] * len(ddpm()))}
