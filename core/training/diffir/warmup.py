"""Stage 2 of DiffIR, first phase: CPEN_S2 and the denoiser of the prior alone, on the error of the prior.

The paper trains so for the first 100 000 steps of stage 2, but for bicubic super-resolution, which does without; rate
2e-4, a tenth of it after 60 000. With `model.steps=0` ("no diffusion", ablation V1) CPEN_S2 learns the prior itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.checkpoints import Checkpoint
from ...models.diffir import CpenS1, Diffir
from ..data.photos import Data, Pool
from ..loop.stage import Stage
from .samples import DiffirRecipe, standardise, starting_pairs
from .student import Student, check_model, frozen_target

__all__ = ["EARLIER", "RECIPE", "STRUCTURES", "WarmupStage", "build"]

RECIPE = DiffirRecipe(steps=1500, batch=32, rate=1e-3, warmup=100, save_every=500)
EARLIER: tuple[str, ...] = ("diffir-pretrain",)
STRUCTURES = False


class WarmupStage(Student):
    """Trains all of a `Diffir` but its DIRformer."""

    kind = "diffir-warmup"

    def __init__(self, recipe: DiffirRecipe, model: Diffir, target: CpenS1, val: Pool) -> None:
        super().__init__(recipe, model, target, val)
        self.trained = {"cpen": 1.0, "denoiser": 1.0} if model.denoiser else {"cpen": 1.0}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """mean |Z^ - Z| (DiffIR, L_diff)."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        priors = self.priors(image, batch)
        return {"loss": F.l1_loss(priors.estimate, priors.target)}


def build(recipe: DiffirRecipe, earlier: Mapping[str, Checkpoint], data: Data) -> Stage:
    """The stage, with the DIRformer of stage 1. Raises UsageError when that is another model's."""
    pretrained = earlier["diffir-pretrain"]
    check_model(recipe, pretrained)
    model = Diffir(recipe.model)
    pretrained.fill(model.dirformer, "dirformer")
    if recipe.model.prior_norm:
        image, _ = starting_pairs(data.train.at(0), recipe)
        standardise(model.cpen, image)
    return WarmupStage(recipe, model, frozen_target(pretrained), data.val)
