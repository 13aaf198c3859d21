"""Stage II, last part: a finish through the unrolled few-step sampler, judged on the restored picture.

The whole DDIM chain is run with gradients, as the nearest public relative of DTPM does in all of its training (our
inference that it suits DTPM). Trained, as before: the adapters, and the predictor at a tenth of the rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import MOBILE, Dtpm, DtpmConfig
from ...sampling.schedule import SCHEDULES, TRAINING_STEPS, trailing
from ..data.photos import Data, Pool, planar
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, Validation
from .earlier import check_model, frozen_encoder, trained_parts
from .losses import detail_loss, psnr_loss
from .semantic import CODE_DROP, CODE_NOISE, draw_code, noisy_code
from .validation import HeldBack

__all__ = ["EARLIER", "RECIPE", "STRUCTURES", "FinishRecipe", "FinishStage", "build"]


@dataclass(frozen=True)
class FinishRecipe(Recipe):
    """How to finish the adapters of a task.

    loss = psnr * (minus PSNR in dB) + l1 * L1 + detail * `detail_loss`, of the restored picture, + content * L1(y_E,
    x_0). A decibel weighs as much as its derivative says: at 30 dB, 0.003 of it pulls about as hard as an L1 of 1.
    """

    task: str = "cleanup"
    model: DtpmConfig = field(default_factory=lambda: MOBILE)
    sampling_steps: int = 4
    predictor_rate: float = 0.1  # share of the rate at which the predictor learns; 0 freezes it
    code_drop: float = CODE_DROP
    code_noise: float = CODE_NOISE
    psnr: float = 0.003
    l1: float = 0.0
    detail: float = 1.0
    content: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.psnr + self.l1 <= 0:
            raise UsageError(
                f"psnr or l1 must be above 0, or nothing would hold the picture; got {self.psnr}, {self.l1}"
            )
        if not 1 <= self.sampling_steps <= TRAINING_STEPS:
            raise UsageError(f"sampling_steps must be in 1..{TRAINING_STEPS}, got {self.sampling_steps}")


RECIPE = FinishRecipe(steps=5_000, batch=16, rate=1e-4, ema=0.999, predictor_rate=0.0)
EARLIER = ("semantic", "dtpm")
STRUCTURES = False


def build(recipe: FinishRecipe, earlier: Mapping[str, Checkpoint], data: Data) -> FinishStage:
    """The stage, from the whole model that the adapters' stage left. Raises UsageError for a model of another task."""
    checkpoint = earlier["dtpm"]
    check_model("dtpm", checkpoint, recipe.model, *(DtpmConfig.__dataclass_fields__))
    if checkpoint.facts["task"] != recipe.task:
        raise UsageError(f"the 'dtpm' checkpoint was trained for '{checkpoint.facts['task']}', not '{recipe.task}'")
    dtpm = Dtpm(recipe.model)
    checkpoint.fill(dtpm)
    return FinishStage(recipe, dtpm, frozen_encoder(earlier, recipe.model), data)


class FinishStage:
    """Trains adapters and predictor of `dtpm` through its sampler."""

    kind = "dtpm"

    def __init__(self, recipe: FinishRecipe, dtpm: Dtpm, encoder: nn.Module, data: Data) -> None:
        recipe.check_crop(dtpm.multiple_of)
        self.recipe, self.config = recipe, recipe.model
        self.dtpm = dtpm
        self.model: nn.Module = dtpm
        self.encode = partial(dtpm.encode, encoder)
        bars = SCHEDULES[self.config.schedule]()
        self.sampling = trailing(recipe.sampling_steps, bars)
        self.held_back = HeldBack(data.val, recipe.task, encoder, bars, recipe.sampling_steps)
        self.trained = trained_parts(dtpm, recipe.predictor_rate)
        self.frozen = nn.ModuleList([encoder])

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """clean, damaged and noise (3, crop, crop), and the code."""
        cut = pool.crop(crop, rng, self.recipe.task)
        clean = planar(cut.clean)
        recipe, length = self.recipe, self.config.semantic.code
        return {
            "clean": clean,
            "damaged": planar(cut.damaged),
            "noise": rng.standard_normal(clean.shape, dtype=np.float32),
            **draw_code(cut.thumbnail, length, recipe.code_drop, recipe.code_noise, rng),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """PSNR, L1 and local contrast of the picture that the sampler restores, and L1 of the predictor."""
        code = noisy_code(self.encode, batch)
        damaged, noise = (batch[name].contiguous(memory_format=torch.channels_last) for name in ("damaged", "noise"))
        base, scale = (x.float() for x in self.dtpm.predict(damaged))
        residual = self.dtpm.residual(damaged, base, code, noise, *self.sampling)
        restored, clean = base + scale * residual, batch["clean"]
        figures = {
            "psnr": psnr_loss(restored, clean),
            "l1": F.l1_loss(restored, clean),
            "detail": detail_loss(restored, clean).mean(),
            "content": F.l1_loss(base, clean),
        }
        terms = [getattr(self.recipe, name) * value for name, value in figures.items()]
        return {"loss": torch.stack(terms).sum(), **figures}

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB on held-back pairs: of the predictor, and of the sampler at half and at full texture."""
        assert isinstance(model, Dtpm)
        return self.held_back.judge(model)

    def facts(self) -> dict[str, Any]:
        """The task, the scale of its residual, and the deviations of what is sampled."""
        return {
            "task": self.recipe.task,
            "residual_scale": float(self.dtpm.residual_scale),
            "deviations": self.held_back.deviations,
        }
