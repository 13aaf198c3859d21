"""Distillation of Gen2Res: a chain that starts in the noised photo, at a middle level.

The teacher's sampler is DDIM, which is deterministic; students do not learn the share of the variance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ..core.models.checkpoints import Checkpoint
from ..core.models.gen2res import Denoiser, build, merged, predictions, restore
from ..core.sampling.samplers import clipped, ddim, noised
from ..core.sampling.schedule import ddpm, strided
from ..core.sampling.steps import Steps
from ..core.training.evaluation.score import EvaluationCase, device_of, noise_of
from .system import Denoised, DistillRecipe, DistillSystem, Problem, clean_and_eps

__all__ = ["START", "Gen2ResSystem"]

START = 200  # level K of 1000 that a photo is noised to, the paper's
USUAL_TASK = "noise"  # what damages photos unless the recipe says otherwise


class Gen2ResSystem(DistillSystem):
    """A "gen2res" checkpoint. Its facts: whether the teacher knew an album, and the sampler the steps belong to."""

    def __init__(self, checkpoint: Checkpoint, source: str, recipe: DistillRecipe) -> None:
        super().__init__(checkpoint, source, build(checkpoint), recipe.task or USUAL_TASK)
        self.trained = self.pictured = {"": 1.0}
        self.facts = {name: value for name, value in checkpoint.facts.items() if name == "constrained"}
        self.facts |= {"sampler": "ddim", "start": round(self.steps(0).times[0] * len(ddpm()))}

    def spread(self, count: int) -> Steps:
        """As in `DistillSystem`: of the levels up to START."""
        return Steps.of(*strided(count or START, ddpm(), START))

    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """As in `DistillSystem`. The state is the image in [-1, 1]; the chain starts in the noised damaged image."""
        start = noised(batch["damaged"] * 2 - 1, batch["noise"], self.steps(0).levels[0])

        def predict(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
            return model(x, t).float()[:, :3]

        def denoise(model: nn.Module, x: Tensor, alpha_bar: Tensor, t: Tensor) -> Denoised:
            """With the clean image limited as the sampler limits it, but with a gradient beyond the limits too."""
            clean, _ = clean_and_eps(x, predict(model, x, t), alpha_bar, "eps")
            limited = clean + (clipped(clean) - clean).detach()
            return clean_and_eps(x, limited, alpha_bar, "x0")

        return Problem(
            start=start.contiguous(memory_format=torch.channels_last),
            truth=batch["clean"] * 2 - 1,
            clean=batch["clean"],
            predict=predict,
            denoise=denoise,
            sampler=partial(ddim, predicts="eps", clip=clipped),
            compose=lambda _, state: state / 2 + 0.5,
        )

    def restore(self, model: Denoiser, steps: Steps, case: EvaluationCase) -> Tensor:
        """As in `DistillSystem`."""
        noise, device = noise_of(case), device_of(model)
        return restore(model, case.image.to(device), lambda step: noise(step).to(device), *steps, "ddim").cpu()

    def timed(self, model: Denoiser, steps: Steps, side: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """As in `DistillSystem`: the restoration is the chain."""
        predict = predictions(merged(model).eval(), steps.times)
        start = torch.randn(1, 3, side, side)

        def chain() -> Tensor:
            return ddim(lambda x, step: predict(x, step)[0], start, steps.levels, "eps", clip=clipped)

        return chain, chain
