"""Distillation of DTPM: a chain over the texture residual, conditioned on y_E and the semantic code.

The predictor stays the teacher's: students differ in how they walk the chain, not in what they restore without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from numpy.random import Generator
from torch import Tensor

from ..core.errors import UsageError
from ..core.models.blocks import merge_branches
from ..core.models.checkpoints import Checkpoint, from_dict
from ..core.models.dtpm import Dtpm, DtpmConfig
from ..core.models.semantic_code import NoEncoder, encoder_of
from ..core.sampling.samplers import ddim
from ..core.sampling.schedule import SCHEDULES, TRAINING_STEPS, trailing
from ..core.sampling.steps import GAIN, Steps
from ..core.training.data.photos import Pool
from ..core.training.dtpm.dtpm_stage import TaskRecipe, draw_code, noisy_code
from ..core.training.evaluation import dtpm as evaluation
from ..core.training.evaluation.score import EvaluationCase
from ..core.training.loop.stage import Arrays
from .system import DistillRecipe, DistillSystem, Problem, clean_and_eps

__all__ = ["DtpmSystem"]


class DtpmSystem(DistillSystem):
    """A "dtpm" checkpoint and its semantic encoder. Raises UsageError for an encoder that does not fit."""

    def __init__(self, checkpoint: Checkpoint, source: str, recipe: DistillRecipe, semantic: Checkpoint | None) -> None:
        teacher = checkpoint.fill(Dtpm(from_dict(DtpmConfig, checkpoint.config)))
        super().__init__(checkpoint, source, teacher, recipe.task or checkpoint.facts["task"])
        self.encoder: Any = encoder_of(semantic) if semantic else NoEncoder()
        if self.encoder.config != self.config.semantic:
            raise UsageError(
                "this DTPM was trained with another semantic encoder, or with none; give --semantic its checkpoint, or "
                "leave it out"
            )
        self.frozen.append(self.encoder)
        self.trained = {"adapters": 1.0} | ({"denoiser": recipe.prior_rate} if recipe.prior_rate > 0 else {})
        self.pictured = {"predictor": 1.0, "denoiser": recipe.prior_rate}
        self.facts = {"task": self.task, "residual_scale": float(teacher.residual_scale)}
        self.thumbnail_side = self.config.semantic.size

    def spread(self, count: int) -> Steps:
        """As in `DistillSystem`."""
        return Steps.of(*trailing(count or TRAINING_STEPS, SCHEDULES[self.config.schedule]()))

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """As in `DistillSystem`: "clean", "damaged" and "noise" (3, crop, crop), and the code."""
        cut, arrays = self.photo(pool, crop, rng)
        drop, noise = TaskRecipe.code_drop, TaskRecipe.code_noise
        return {**arrays, **draw_code(cut.thumbnail, self.config.semantic.code, drop, noise, rng)}

    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """As in `DistillSystem`. The state is the residual divided by its scale; the chain starts in pure noise."""
        damaged, noise, code = self._inputs(self.teacher, batch)
        with torch.no_grad():
            base, scale = (x.float() for x in self.teacher.predict(damaged))
        predicts = self.config.prediction

        def predict(model: Dtpm, x: Tensor, t: Tensor) -> Tensor:
            return model.denoise(x, damaged, base, code, t)

        return Problem(
            start=noise,
            truth=(batch["clean"] - base) / scale,
            clean=batch["clean"],
            predict=predict,
            denoise=lambda model, x, level, t: clean_and_eps(x, predict(model, x, t), level, predicts),
            sampler=partial(ddim, predicts=predicts),
            compose=lambda _, state: base + scale * state,
        )

    def restored(self, model: Dtpm, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """As in `DistillSystem`, with the texture gain of the packs."""
        damaged, noise, code = self._inputs(model, batch)
        base, scale = model.predict(damaged)
        texture = model.amplitude(scale) * model.residual(damaged, base, code, noise, *steps)
        return (base + GAIN * texture).float()

    def _inputs(self, model: Dtpm, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        damaged, noise = (batch[name].contiguous(memory_format=torch.channels_last) for name in ("damaged", "noise"))
        return damaged, noise, noisy_code(partial(model.encode, self.encoder), batch)

    def restore(self, model: Dtpm, steps: Steps, case: EvaluationCase) -> Tensor:
        """As in `DistillSystem`."""
        return evaluation.restore(model, self.encoder, steps, case)

    def timed(self, model: Dtpm, steps: Steps, side: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """As in `DistillSystem`. The code runs once per photo and is not timed; the chain is without the predictor."""
        plain = merge_branches(model)
        image, base, noise = torch.rand(1, 3, side, side), torch.rand(1, 3, side, side), torch.randn(1, 3, side, side)
        code, strength = torch.zeros(1, self.config.semantic.code), torch.ones(1)
        return (
            lambda: plain(image, code, noise, strength, *steps),
            lambda: plain.residual(image, base, code, noise, *steps),
        )
