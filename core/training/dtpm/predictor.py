"""Stage II, first part: the initial predictor E alone, on damaged and clean pairs of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import MOBILE, DamageEstimator, DtpmConfig, Predictor
from ..data.photos import Data, Pool, planar, val_pairs
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, Validation
from .losses import damage_loss, local_damage, psnr_loss, sigma_loss
from .validation import device_of, in_parts, psnr, side_by_side

__all__ = ["EARLIER", "RECIPE", "STRUCTURES", "PredictorRecipe", "PredictorStage", "build"]


@dataclass(frozen=True)
class PredictorRecipe(Recipe):
    """How to train the predictor of a DTPM.

    loss = minus PSNR in dB + sigma * `sigma_loss` + damage * `damage_loss`, the last two of calibrated predictors. One
    restores a share `blind` of the crops under its own estimate of the damage, as in use, and the others under the true
    damage: so it learns to believe what it is given, which is what an amount above 1 relies on.
    """

    task: str = "cleanup"
    model: DtpmConfig = field(default_factory=lambda: MOBILE)
    sigma: float = 0.1
    damage: float = 0.1
    blind: float = 0.5


RECIPE = PredictorRecipe(steps=60_000, rate=1.5e-3)
JITTER = 0.1  # standard deviation of the logarithm of what the true damage is multiplied by
FLOOR = 1e-4  # mean squared error, 40 dB: crops with hardly any damage do not outweigh the others
EARLIER: tuple[str, ...] = ()
STRUCTURES = False


def build(recipe: PredictorRecipe, earlier: Mapping[str, Checkpoint], data: Data) -> PredictorStage:
    """The stage, from nothing."""
    del earlier
    if recipe.model.predictor.lora:
        raise UsageError(
            "factors were asked for (model.predictor.lora) without a predictor to put them beside; train them with: "
            "pocketprior train dtpm delta --dtpm FILE"
        )
    return PredictorStage(recipe, data)


class PredictorStage:
    """Trains E, or its factors where the rest is another task's, to restore as well as regression can."""

    kind = "predictor"

    def __init__(self, recipe: PredictorRecipe, data: Data) -> None:
        self.recipe, self.config = recipe, recipe.model
        self.task = recipe.task
        self.pairs = val_pairs(data.val, recipe.task)
        predictor = Predictor(recipe.model.predictor)
        recipe.check_crop(predictor.multiple_of)
        self.predictor = predictor
        self.model: nn.Module = predictor
        self.trained = dict.fromkeys(predictor.own_parts(), 1.0)
        self.frozen = nn.ModuleList()

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """clean and damaged, (3, crop, crop); jitter, (): of the true damage, 0 to restore under the estimate."""
        cut = pool.crop(crop, rng, self.task)
        arrays = {"clean": planar(cut.clean), "damaged": planar(cut.damaged)}
        if self.predictor.calibrated:
            jitter = 0 if rng.random() < self.recipe.blind else np.exp(rng.normal(0, JITTER))
            arrays["jitter"] = np.array(jitter, np.float32)
        return arrays

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Minus PSNR; of a calibrated predictor also what its sigma and its damage are worth."""
        damaged, clean = batch["damaged"].contiguous(memory_format=torch.channels_last), batch["clean"]
        if not self.predictor.calibrated:
            return {"loss": psnr_loss(self.predictor(damaged), clean)}
        true = local_damage(batch["damaged"], clean, DamageEstimator.cell)
        estimated, jitter = self.predictor.damage(damaged), batch["jitter"].reshape(-1, 1, 1, 1)
        given = torch.where(jitter > 0, jitter * true, estimated.detach().float())
        base, sigma = self.predictor.restore(damaged, given)
        figures = {
            "psnr": psnr_loss(base, clean, FLOOR),
            "sigma": sigma_loss(sigma, clean - base.float()),
            "damage": damage_loss(estimated, true),
        }
        total = figures["psnr"] + self.recipe.sigma * figures["sigma"] + self.recipe.damage * figures["damage"]
        return {"loss": total, **figures}

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB of the held-back pairs."""
        damaged, clean = self.pairs
        restored = in_parts(model, device_of(model), damaged)
        picture = side_by_side(damaged, restored, clean)
        return Validation({"val_psnr": psnr(restored, clean)}, {"damaged_restored_clean": picture})

    def facts(self) -> dict[str, Any]:
        """The task it was trained for."""
        return {"task": self.task}
