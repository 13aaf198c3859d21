"""Stage 2 of DiffIR, third phase, where sharpness counts more than PSNR: local contrast and a discriminator.

In the paper for super-resolution and inpainting: 400 000 steps at 2e-4, the discriminator at 1e-4, halved at 200 000,
with VGG features as the perceptual term and, for inpainting, the losses of LaMa. Ours has one set of losses for both,
and local contrast (`detail_loss`) in place of a network that would have to be downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...models.checkpoints import Checkpoint
from ...models.diffir import CpenS1, Diffir, completed
from ..aside import fixed
from ..dtpm.losses import detail_loss
from ..photos import Data, Pool
from ..stage import Stage
from .discriminator import Opponent, real_loss
from .joint import JointRecipe, JointStage
from .student import check_model, frozen_target

__all__ = ["EARLIER", "RECIPE", "STRUCTURES", "AdversarialRecipe", "AdversarialStage", "build"]


@dataclass(frozen=True)
class AdversarialRecipe(JointRecipe):
    """A recipe of this stage; its terms are added to the loss of the joint phase."""

    detail: float = 1.0  # weight of the error of local contrast
    adversarial: float = 0.01  # weight of the discriminator's verdict
    discriminator_rate: float = 1e-4
    discriminator_width: int = 16  # channels at full size

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("discriminator_width")


RECIPE = AdversarialRecipe(steps=2000, batch=16, crop=96, rate=1e-4, warmup=100, save_every=500)
EARLIER: tuple[str, ...] = ("diffir-pretrain", "diffir")
STRUCTURES = False


class AdversarialStage(JointStage):
    """Trains all of a `Diffir` against a discriminator that learns with it."""

    def __init__(self, recipe: AdversarialRecipe, model: Diffir, target: CpenS1, val: Pool) -> None:
        super().__init__(recipe, model, target, val)
        self.detail, self.adversarial = recipe.detail, recipe.adversarial
        self.aside = self.opponent = Opponent(self.made, recipe.discriminator_width, recipe.discriminator_rate)

    def made(self, batch: dict[str, Tensor]) -> Tensor:
        """The restored images of a batch as a user gets them, but not clipped."""
        return completed(batch["image"], self.restored(batch)[0])

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of the joint phase + detail * error of local contrast + adversarial * cross-entropy to "real"."""
        restored, figures = self.regression(batch)
        made = completed(batch["image"], restored)
        detail = detail_loss(made, batch["clean"]).mean()
        with fixed(self.opponent.judge):
            adversarial = real_loss(self.opponent.judge(made))
        loss = figures["loss"] + self.detail * detail + self.adversarial * adversarial
        return {**figures, "loss": loss, "detail": detail, "adversarial": adversarial}


def build(recipe: AdversarialRecipe, earlier: Mapping[str, Checkpoint], data: Data) -> Stage:
    """The stage, going on from the joint phase. Raises UsageError when an earlier stage is another model's."""
    for checkpoint in earlier.values():
        check_model(recipe, checkpoint)
    model = Diffir(recipe.model)
    earlier["diffir"].fill(model)
    return AdversarialStage(recipe, model, frozen_target(earlier["diffir-pretrain"]), data.val)
