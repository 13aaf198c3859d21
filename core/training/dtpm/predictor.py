"""Stage II, first part: the initial predictor E, on damaged and clean pairs of a task.

A further task may share it: its predictor is that of a finished DTPM, frozen, plus low-rank factors (`delta`). An app
that has the first task then needs only the factors and the adapters for the next one (`export/writer/multitask.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import MOBILE, DamageEstimator, DtpmConfig, Predictor
from ..data.photos import Pool, TrainingData, planar, val_pairs
from ..evaluation.score import batch_psnr, device_of, in_parts, side_by_side
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, BaseStage, StageDefinition, Validation
from ..losses import damage_loss, local_damage, psnr_loss, sigma_loss
from .dtpm_stage import check_model

__all__ = ["DELTA_STAGE", "PREDICTOR_STAGE", "DeltaRecipe", "PredictorRecipe", "PredictorStage"]

JITTER = 0.1  # standard deviation of the logarithm of the factor on the true damage
FLOOR = 1e-4  # mean squared error, 40 dB: crops with hardly any damage must not outweigh the others


@dataclass(frozen=True)
class PredictorRecipe(Recipe):
    """How to train the predictor of a DTPM.

    loss = minus PSNR in dB + sigma * `sigma_loss` + damage * `damage_loss`, the last two for calibrated predictors.
    These restore a share `blind` of the crops under their own estimate of the damage, as in use, and the others under
    the true damage, so that they learn to trust the damage they are given: an amount above 1 relies on that.
    """

    task: str = "cleanup"
    model: DtpmConfig = field(default_factory=lambda: MOBILE)
    sigma: float = 0.1
    damage: float = 0.1
    blind: float = 0.5


class PredictorStage(BaseStage):
    """Trains E, or its factors if the rest is another task's, to restore as well as regression can."""

    kind = "predictor"

    def __init__(self, recipe: PredictorRecipe, data: TrainingData) -> None:
        self.recipe = recipe
        self.pairs = val_pairs(data.val, recipe.task)
        self.predictor = Predictor(recipe.model.predictor)
        recipe.check_crop(self.predictor.multiple_of)
        super().__init__(recipe.model, self.predictor, task=recipe.task)
        self.trained = dict.fromkeys(self.predictor.own_parts(), 1.0)

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """Draw clean and damaged (3, crop, crop); jitter (), a factor on the true damage, 0 to use the estimate."""
        cut = pool.crop(crop, rng, self.recipe.task)
        arrays = {"clean": planar(cut.clean), "damaged": planar(cut.damaged)}
        if self.predictor.calibrated:
            jitter = 0 if rng.random() < self.recipe.blind else np.exp(rng.normal(0, JITTER))
            arrays["jitter"] = np.array(jitter, np.float32)
        return arrays

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Minus PSNR; for a calibrated predictor also the losses of its sigma and of its damage estimate."""
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
        images = side_by_side(damaged, restored, clean)
        return Validation({"val_psnr": batch_psnr(restored, clean)}, {"damaged_restored_clean": images})


def _build_predictor(recipe: PredictorRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> PredictorStage:
    """From scratch."""
    del earlier
    if recipe.model.predictor.lora:
        raise UsageError(
            f"model.predictor.lora is {recipe.model.predictor.lora}, but factors need the predictor of another task; "
            "train them with: pocketprior train dtpm delta --dtpm FILE"
        )
    return PredictorStage(recipe, data)


PREDICTOR_STAGE = StageDefinition(PredictorRecipe(steps=60_000, rate=1.5e-3), _build_predictor)


@dataclass(frozen=True)
class DeltaRecipe(PredictorRecipe):
    """How to train the factors; `model` is that of the first task."""

    rank: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("rank")


def _build_delta(recipe: DeltaRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> PredictorStage:
    """At first the predictor of the "dtpm" checkpoint. Raises UsageError for a checkpoint of the same task."""
    checkpoint = earlier["dtpm"]
    if checkpoint.facts["task"] == recipe.task:
        raise UsageError(
            f"the 'dtpm' checkpoint was trained for '{recipe.task}' itself; give another --task to share its weights"
        )
    check_model("dtpm", checkpoint, recipe.model, "predictor")
    if recipe.model.predictor.lora:
        raise UsageError(
            "the 'dtpm' checkpoint shares the predictor of another task; give the checkpoint of that task as --dtpm"
        )
    base = Predictor(recipe.model.predictor)
    checkpoint.fill(base, "predictor")
    model = replace(recipe.model, predictor=replace(recipe.model.predictor, lora=recipe.rank))
    stage = PredictorStage(replace(recipe, model=model), data)
    stage.model.load_state_dict(base.state_dict(), strict=False)  # the factors keep their initial values
    return stage


DELTA_STAGE = StageDefinition(DeltaRecipe(steps=20_000, rate=1.5e-3), _build_delta)
