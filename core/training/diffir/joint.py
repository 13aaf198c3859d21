"""Stage 2 of DiffIR, second phase: CPEN_S2, denoiser and DIRformer together, through the unrolled chain.

The paper's recipe for deblurring: 300 000 steps after the warm-up, Adam (0.9, 0.99) at 2e-4, halved every 80 000. Its
further phase with perceptual and adversarial losses, for super-resolution and inpainting, is `adversarial`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.checkpoints import Checkpoint
from ...models.diffir import CpenS1, Diffir
from ..data.photos import Data, Pool
from ..loop.stage import Stage
from .samples import DiffirRecipe
from .student import Priors, Student, check_model, frozen_target

__all__ = ["EARLIER", "RECIPE", "STRUCTURES", "JointRecipe", "JointStage", "build"]


@dataclass(frozen=True)
class JointRecipe(DiffirRecipe):
    """A recipe of this stage."""

    prior_weight: float = 1.0  # of the error of the prior, beside 1 for that of the picture


RECIPE = JointRecipe(steps=4000, batch=16, rate=5e-4, warmup=100, save_every=500)
EARLIER: tuple[str, ...] = ("diffir-pretrain", "diffir-warmup")
STRUCTURES = False


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


def build(recipe: JointRecipe, earlier: Mapping[str, Checkpoint], data: Data) -> Stage:
    """The stage, going on from the warm-up. Raises UsageError when an earlier stage is another model's."""
    for checkpoint in earlier.values():
        check_model(recipe, checkpoint)
    model = Diffir(recipe.model)
    earlier["diffir-warmup"].fill(model)
    return JointStage(recipe, model, frozen_target(earlier["diffir-pretrain"]), data.val)
