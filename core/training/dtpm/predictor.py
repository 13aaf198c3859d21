"""Stage II, first part: the initial predictor E alone, on damaged and clean pairs of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.random import Generator
from torch import Tensor, nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import DtpmConfig, Predictor
from ..photos import Data, Pool, pair, planar, val_pairs
from ..recipe import Recipe
from ..stage import Arrays, Validation
from .losses import psnr_loss
from .validation import device_of, in_parts, psnr, side_by_side

__all__ = ["EARLIER", "RECIPE", "STRUCTURES", "PredictorRecipe", "PredictorStage", "build"]


@dataclass(frozen=True)
class PredictorRecipe(Recipe):
    """How to train the predictor of a DTPM."""

    task: str = "cleanup"
    model: DtpmConfig = field(default_factory=DtpmConfig)


RECIPE = PredictorRecipe(steps=60_000, rate=1.5e-3)
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
        self.config = recipe.model
        self.task = recipe.task
        self.pairs = val_pairs(data.val, recipe.task)
        predictor = Predictor(recipe.model.predictor)
        recipe.check_crop(predictor.unet.multiple_of)
        self.model: nn.Module = predictor
        self.trained = dict.fromkeys(predictor.own_parts(), 1.0)
        self.frozen = nn.ModuleList()

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """clean and damaged, (3, crop, crop)."""
        cut = pool.crop(crop, rng)
        return {"clean": planar(cut.clean), "damaged": planar(pair(cut, self.task, rng))}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Minus PSNR."""
        damaged = batch["damaged"].contiguous(memory_format=torch.channels_last)
        return {"loss": psnr_loss(self.model(damaged), batch["clean"])}

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB of the held-back pairs."""
        damaged, clean = self.pairs
        restored = in_parts(model, device_of(model), damaged)
        picture = side_by_side(damaged, restored, clean)
        return Validation({"val_psnr": psnr(restored, clean)}, {"damaged_restored_clean": picture})

    def facts(self) -> dict[str, Any]:
        """The task it was trained for."""
        return {"task": self.task}
