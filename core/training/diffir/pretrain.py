"""Stage 1 of DiffIR: CPEN_S1, which sees the ground truth, and the DIRformer, end to end on L1.

The paper's recipe for deblurring (configuration `deblur`): 300 000 steps of batch 64 and less on crops of 192 to 512
pixels that grow on the way, Adam (0.9, 0.999) at 2e-4, average 0.999; for super-resolution a million steps of batch 64
on crops of 256. The default is for `mobile` on a CPU, with crops of one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.checkpoints import Checkpoint
from ...models.diffir import Teacher
from ..data.photos import Pool, TrainingData
from ..evaluation.score import device_of
from ..loop.stage import Arrays, StageDefinition, Validation
from .diffir_stage import DiffirRecipe, draw_pair, held_back, standardise, starting_pairs, validation

__all__ = ["PRETRAIN_STAGE", "PretrainStage"]


class PretrainStage:
    """Trains a `Teacher`."""

    kind = "diffir-pretrain"

    def __init__(self, recipe: DiffirRecipe, data: TrainingData) -> None:
        self.recipe = recipe
        self.config = recipe.model
        self.teacher = Teacher(recipe.model)
        if recipe.model.prior_norm:
            standardise(self.teacher.cpen, *starting_pairs(data.train.at(0), recipe))
        self.model: nn.Module = self.teacher
        self.trained = {"": 1.0}
        self.frozen = nn.ModuleList()
        self.pairs = held_back(data.val, recipe)

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """Draw "image" and "clean"; see `draw_pair`."""
        return draw_pair(pool, crop, self.recipe, rng)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """L1 of the restored image."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        return {"loss": F.l1_loss(self.teacher(image, batch["clean"]).float(), batch["clean"])}

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB under the prior of the ground truth, the upper bound of stage 2, another photo's, and the mean."""
        assert isinstance(model, Teacher)
        device = device_of(model)
        pairs = [(image.to(device), clean.to(device)) for image, clean in self.pairs]
        return validation(pairs, [model.cpen(*pair) for pair in pairs], model.dirformer)

    def facts(self) -> dict[str, Any]:
        """The task it was trained for."""
        return {"task": self.recipe.task}


def _build(recipe: DiffirRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> PretrainStage:
    """From scratch."""
    del earlier
    return PretrainStage(recipe, data)


PRETRAIN_STAGE = StageDefinition(DiffirRecipe(steps=4000, batch=16, rate=1e-3, warmup=200, save_every=500), _build)
