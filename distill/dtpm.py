"""Distillation of DTPM: a chain over the texture residual, conditioned on y_E and the semantic code.

The predictor stays the teacher's: students differ in how they walk the chain, not in what they restore without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from numpy.random import Generator
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.models.checkpoints import Checkpoint, from_dict
from ..core.models.deploy.specialise import fixed_dtpm
from ..core.models.dtpm import Dtpm, DtpmConfig
from ..core.models.semantic_code import NoEncoder, encoder_of
from ..core.sampling.samplers import ddim
from ..core.sampling.schedule import SCHEDULES, TRAINING_STEPS, trailing
from ..core.sampling.steps import GAIN, Steps, own_steps
from ..core.training.data.photos import Pool
from ..core.training.dtpm.dtpm_stage import CODE_DROP, CODE_NOISE, draw_code, noisy_code
from ..core.training.evaluation import dtpm as evaluation
from ..core.training.evaluation.score import EvaluationCase
from ..core.training.loop.stage import Arrays
from .ddim_step import clean_and_eps
from .distill_stage import DistillRecipe
from .system import Denoised, DistillSystem, Problem, photo_arrays, sampler

__all__ = ["DtpmSystem"]


class DtpmSystem(DistillSystem):
    """A "dtpm" checkpoint and its semantic encoder. Raises UsageError for an encoder that does not fit."""

    kind = "dtpm"

    def __init__(self, checkpoint: Checkpoint, semantic: Checkpoint | None, recipe: DistillRecipe, source: str) -> None:
        self.source = source
        self.config = from_dict(DtpmConfig, checkpoint.config)
        self.teacher: Dtpm = Dtpm(self.config).eval().requires_grad_(False)
        checkpoint.fill(self.teacher)
        self.encoder: Any = encoder_of(semantic) if semantic else NoEncoder()
        if self.encoder.config != self.config.semantic:
            raise UsageError(
                "this DTPM was trained with another semantic encoder, or with none; give --semantic its checkpoint, or "
                "leave it out"
            )
        self.frozen = nn.ModuleList([self.teacher, self.encoder])
        self.trained = {"adapters": 1.0} | ({"denoiser": recipe.prior_rate} if recipe.prior_rate > 0 else {})
        self.pictured = {"predictor": 1.0, "denoiser": recipe.prior_rate}
        self.task = recipe.task or checkpoint.facts["task"]
        self.multiple_of = self.teacher.multiple_of
        self.thumbnail_side = self.config.semantic.size
        self.own = own_steps(checkpoint.facts)

    def spread(self, count: int) -> Steps:
        """As in `DistillSystem`."""
        return Steps.of(*trailing(count or TRAINING_STEPS, SCHEDULES[self.config.schedule]()))

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """As in `DistillSystem`: "clean", "damaged" and "noise" (3, crop, crop), and the code."""
        cut, arrays = photo_arrays(pool, crop, rng, self.task)
        return {**arrays, **draw_code(cut.thumbnail, self.config.semantic.code, CODE_DROP, CODE_NOISE, rng)}

    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """As in `DistillSystem`. The state is the residual divided by its scale; the chain starts in pure noise."""
        damaged, noise = (batch[name].contiguous(memory_format=torch.channels_last) for name in ("damaged", "noise"))
        with torch.no_grad():
            code = noisy_code(partial(self.teacher.encode, self.encoder), batch)
            base, scale = (x.float() for x in self.teacher.predict(damaged))
        predicts = self.config.prediction

        def predict(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
            assert isinstance(model, Dtpm)
            return model.denoise(x, damaged, base, code, t)

        return Problem(
            start=noise,
            truth=(batch["clean"] - base) / scale,
            clean=batch["clean"],
            denoise=lambda model, x, level, t: Denoised(*clean_and_eps(x, predict(model, x, t), level, predicts)),
            sample=sampler(predict, partial(ddim, predicts=predicts)),
            compose=lambda _, state: base + scale * state,
        )

    def restored(self, model: nn.Module, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """As in `DistillSystem`, with the texture gain of the packs."""
        assert isinstance(model, Dtpm)
        damaged, noise = (batch[name].contiguous(memory_format=torch.channels_last) for name in ("damaged", "noise"))
        code = noisy_code(partial(model.encode, self.encoder), batch)
        base, scale = model.predict(damaged)
        texture = model.amplitude(scale) * model.residual(damaged, base, code, noise, *steps)
        return (base + GAIN * texture).float()

    def restore(self, model: nn.Module, steps: Steps, case: EvaluationCase) -> Tensor:
        """As in `DistillSystem`."""
        assert isinstance(model, Dtpm)
        return evaluation.restore(model, self.encoder, steps, case)

    def timed(self, model: nn.Module, steps: Steps, side: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """As in `DistillSystem`. The code runs once per photo and is not timed; the chain is without the predictor."""
        assert isinstance(model, Dtpm)
        fixed = fixed_dtpm(model, steps)
        image, base, noise = torch.rand(1, 3, side, side), torch.rand(1, 3, side, side), torch.randn(1, 3, side, side)
        code, strength = torch.zeros(1, self.config.semantic.code), torch.ones(1)

        def chain() -> Tensor:
            def denoise(x: Tensor, step: int) -> Tensor:
                return fixed.denoise(x, image, base, code, step)

            return ddim(denoise, noise, steps.levels, self.config.prediction)

        return lambda: fixed(image, code, noise, strength), chain

    def facts(self) -> dict[str, Any]:
        """The task, and the scale of its residual."""
        return {"task": self.task, "residual_scale": float(self.teacher.residual_scale)}
