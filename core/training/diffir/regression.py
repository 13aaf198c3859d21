"""The stages of DiffIR that minimise L1: stage 1 (`pretrain`), and the warm-up and joint phase of stage 2.

Stage 1: CPEN_S1, which sees the ground truth, and the DIRformer, end to end. The paper's recipe for deblurring
(configuration `deblur`): 300 000 steps of batch 64 and less on crops that grow from 192 to 512 pixels, Adam (0.9,
0.999) at 2e-4, average 0.999; for super-resolution a million steps of batch 64 on crops of 256. The default is for
`mobile` on a CPU, with crops of one size.

Warm-up: CPEN_S2 and the denoiser on the error of the prior. The paper trains so for the first 100 000 steps of stage 2,
except for bicubic super-resolution, which has no warm-up; rate 2e-4, a tenth of it after 60 000. With `model.steps=0`
("no diffusion", ablation V1) CPEN_S2 learns the prior itself.

Joint phase: CPEN_S2, denoiser and DIRformer through the unrolled chain. The paper's recipe for deblurring: 300 000
steps, Adam (0.9, 0.99) at 2e-4, halved every 80 000. Its further phase with perceptual and adversarial losses, for
super-resolution and inpainting, is `adversarial`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.checkpoints import Checkpoint
from ...models.diffir import CpenS1, Diffir, Teacher
from ..data.photos import Pool, TrainingData
from ..evaluation.score import device_of
from ..loop.stage import Arrays, StageDefinition, Validation
from .diffir_stage import (
    DiffirRecipe,
    Priors,
    Student,
    check_config,
    draw_pair,
    frozen_target,
    held_back,
    standardise,
    starting_pairs,
    trained_model,
    validation,
)

__all__ = ["JOINT_STAGE", "PRETRAIN_STAGE", "WARMUP_STAGE", "JointRecipe", "JointStage", "PretrainStage", "WarmupStage"]


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


def _build_pretrain(recipe: DiffirRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> PretrainStage:
    """From scratch."""
    del earlier
    return PretrainStage(recipe, data)


PRETRAIN_STAGE = StageDefinition(
    DiffirRecipe(steps=4000, batch=16, rate=1e-3, warmup=200, save_every=500), _build_pretrain
)


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
    model = trained_model(recipe, earlier, "diffir-warmup")
    return JointStage(recipe, model, frozen_target(earlier["diffir-pretrain"]), data.val)


JOINT_STAGE = StageDefinition(JointRecipe(steps=4000, batch=16, rate=5e-4, warmup=100, save_every=500), _build_joint)
