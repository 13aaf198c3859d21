"""Stage 2 of DiffIR: the warm-up of the prior alone, then everything together through the unrolled chain.

Warm-up: CPEN_S2 and the denoiser on the error of the prior. The paper trains so for the first 100 000 steps of stage 2,
except for bicubic super-resolution, which has no warm-up; rate 2e-4, a tenth of it after 60 000. With `model.steps=0`
("no diffusion", ablation V1) CPEN_S2 learns the prior itself.

Joint phase: CPEN_S2, denoiser and DIRformer. The paper's recipe for deblurring: 300 000 steps, Adam (0.9, 0.99) at
2e-4, halved every 80 000. Its further phase with perceptual and adversarial losses, for super-resolution and
inpainting, is `adversarial`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.checkpoints import Checkpoint
from ...models.diffir import CpenS1, Diffir
from ..data.photos import Pool, TrainingData
from ..loop.stage import StageDefinition
from .diffir_stage import DiffirRecipe, Priors, Student, check_config, frozen_target, standardise, starting_pairs

__all__ = ["JOINT_STAGE", "WARMUP_STAGE", "JointRecipe", "JointStage", "WarmupStage"]


class WarmupStage(Student):
    """Trains all of a `Diffir` but its DIRformer."""

    kind = "diffir-warmup"

    def __init__(self, recipe: DiffirRecipe, model: Diffir, target: CpenS1, val: Pool) -> None:
        super().__init__(recipe, model, target, val)
        self.trained = {"cpen": 1.0, "denoiser": 1.0} if model.denoiser else {"cpen": 1.0}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean |Z^ - Z| (DiffIR, L_diff)."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        priors = self.priors(image, batch)
        return {"loss": F.l1_loss(priors.estimate, priors.target)}


def _build_warmup(recipe: DiffirRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> WarmupStage:
    """With the DIRformer of stage 1. Raises UsageError if that is another model's."""
    pretrained = earlier["diffir-pretrain"]
    check_config(recipe, pretrained)
    model = Diffir(recipe.model)
    pretrained.fill(model.dirformer, "dirformer")
    if recipe.model.prior_norm:
        image, _ = starting_pairs(data.train.at(0), recipe)
        standardise(model.cpen, image)
    return WarmupStage(recipe, model, frozen_target(pretrained), data.val)


WARMUP_STAGE = StageDefinition(DiffirRecipe(steps=1500, batch=32, rate=1e-3, warmup=100, save_every=500), _build_warmup)


@dataclass(frozen=True)
class JointRecipe(DiffirRecipe):
    """How to train all of a DiffIR."""

    prior_weight: float = 1.0  # weight of the error of the prior; that of the image has 1


class JointStage(Student):
    """Trains all of a `Diffir`."""

    kind = "diffir"

    def __init__(self, recipe: JointRecipe, model: Diffir, target: CpenS1, val: Pool) -> None:
        super().__init__(recipe, model, target, val)
        self.prior_weight = recipe.prior_weight
        self.trained = {"": 1.0}

    def restored(self, batch: dict[str, Tensor]) -> tuple[Tensor, Priors]:
        """The restored images, (N, 3, scale H, scale W), not clipped, and the priors of a batch."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        priors = self.priors(image, batch)
        return self.diffir.restore(image, priors.estimate).float(), priors

    def regression(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The restored images, and L1 of them + mean |Z^ - Z|."""
        restored, priors = self.restored(batch)
        content = F.l1_loss(restored, batch["clean"])
        error = F.l1_loss(priors.estimate, priors.target)
        return restored, {"loss": content + self.prior_weight * error, "content": content, "prior": error}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """L1 of the restored image + mean |Z^ - Z|."""
        return self.regression(batch)[1]


def _build_joint(recipe: JointRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> JointStage:
    """From the warm-up. Raises UsageError if an earlier stage trained another model."""
    for checkpoint in earlier.values():
        check_config(recipe, checkpoint)
    model = Diffir(recipe.model)
    earlier["diffir-warmup"].fill(model)
    return JointStage(recipe, model, frozen_target(earlier["diffir-pretrain"]), data.val)


JOINT_STAGE = StageDefinition(JointRecipe(steps=4000, batch=16, rate=5e-4, warmup=100, save_every=500), _build_joint)
