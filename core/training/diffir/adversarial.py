"""Stage 2 of DiffIR, third phase, for sharpness rather than PSNR: local contrast and a discriminator.

In the paper for super-resolution and inpainting: 400 000 steps at 2e-4, the discriminator at 1e-4, halved at 200 000,
with VGG features as the perceptual term and, for inpainting, the losses of LaMa. Ours has one set of losses for both,
and local contrast (`detail_loss`) in place of a network that would have to be downloaded.

The discriminator is a U-Net that scores how real every pixel looks: that of Wang et al., "Real-ESRGAN" (ICCV Workshops
2021), after Schönfeld et al., "A U-Net Based Discriminator for Generative Adversarial Networks" (CVPR 2020), with the
spectral normalisation of Miyato et al. (ICLR 2018); narrower than theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ...models.checkpoints import Checkpoint
from ...models.diffir import CpenS1, Diffir, completed
from ..data.photos import Pool, TrainingData
from ..loop.stage import AuxiliaryNetworks, StageDefinition, fixed
from ..losses import detail_loss
from .diffir_stage import frozen_target, trained_model
from .regression import JointRecipe, JointStage

__all__ = ["ADVERSARIAL_STAGE", "AdversarialRecipe", "AdversarialStage", "Discriminator", "Opponent", "real_loss"]

LEAK = 0.2  # slope of every LeakyReLU
OCTAVES = 3  # halvings of the image: sides must be 8 pixels or more


@dataclass(frozen=True)
class AdversarialRecipe(JointRecipe):
    """How to train against a discriminator; the terms are added to the loss of the joint phase."""

    detail: float = 1.0  # weight of the error of local contrast
    adversarial: float = 0.01  # weight of the discriminator's loss
    discriminator_rate: float = 1e-4
    discriminator_width: int = 16  # channels at full size

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("discriminator_width")


class AdversarialStage(JointStage):
    """Trains all of a `Diffir` against a discriminator that learns with it."""

    def __init__(self, recipe: AdversarialRecipe, model: Diffir, target: CpenS1, val: Pool) -> None:
        super().__init__(recipe, model, target, val)
        self.detail, self.adversarial = recipe.detail, recipe.adversarial
        self.auxiliary = self.opponent = Opponent(self.made, recipe.discriminator_width, recipe.discriminator_rate)

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


class Discriminator(nn.Module):
    """image (N, 3, H, W) in [0, 1] -> scores (N, 1, H, W), float32; higher is more real.

    Each forward pass in training mode updates the estimates of its layers' spectral norms.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(OCTAVES + 1)]
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.downs = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False)) for a, b in pairwise(widths)
        )
        self.ups = nn.ModuleList(
            spectral_norm(nn.Conv2d(b, a, 3, padding=1, bias=False))
            for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.refine = spectral_norm(nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.end = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel."""
        x = F.leaky_relu(self.intro(image), LEAK)
        skips = []
        for down in self.downs:
            skips.append(x)
            x = F.leaky_relu(down(x), LEAK)
        for up in self.ups:
            skip = skips.pop()
            x = F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False)
            x = F.leaky_relu(up(x), LEAK) + skip
        return self.end(F.leaky_relu(self.refine(x), LEAK)).float()


def real_loss(scores: Tensor) -> Tensor:
    """Mean cross-entropy between scores and "all pixels are real", in nats."""
    return F.softplus(-scores).mean()


class Opponent(AuxiliaryNetworks):
    """The discriminator and its optimiser; see `Auxiliary`.

    made: (batch) -> the images that should pass as real, (N, 3, H, W). The discriminator is in evaluation mode except
    during its own steps, so that a loss that uses it does not change it.
    """

    def __init__(self, made: Callable[[dict[str, Tensor]], Tensor], width: int, rate: float) -> None:
        self.made, self.judge = made, Discriminator(width).eval()
        super().__init__([self.judge], [(self.judge.parameters(), rate)])

    def step(self, done: int, batch: dict[str, Tensor], shared: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """As in `Auxiliary`: one step towards telling the clean images of the batch from the restored ones."""
        del done
        with torch.no_grad():
            made = self.made(batch)
        self.judge.train()
        loss = real_loss(self.judge(batch["clean"])) + real_loss(-self.judge(made))
        self.descend([loss], shared)
        self.judge.eval()
        return {"discriminator": loss.detach()}


def _build(recipe: AdversarialRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> AdversarialStage:
    """From the joint phase. Raises UsageError if an earlier stage trained another model."""
    model = trained_model(recipe, earlier, "diffir")
    return AdversarialStage(recipe, model, frozen_target(earlier["diffir-pretrain"]), data.val)


ADVERSARIAL_STAGE = StageDefinition(
    AdversarialRecipe(steps=2000, batch=16, crop=96, rate=1e-4, warmup=100, save_every=500), _build
)
