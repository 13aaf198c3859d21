"""The stages of DiffIR: stage 1 (`pretrain`), and the phases of stage 2 (`warmup`, `joint`, `adversarial`).

Stage 1: CPEN_S1, which sees the ground truth, and the DIRformer, end to end. The paper's recipe for deblurring
(configuration `deblur`): 300 000 steps of batch 64 and less on crops that grow from 192 to 512 pixels, Adam (0.9,
0.999) at 2e-4, average 0.999; for super-resolution a million steps of batch 64 on crops of 256. The default is for
`mobile` on a CPU, with crops of one size.

Warm-up: CPEN_S2 and the denoiser on the error of the prior. The paper trains so for the first 100 000 steps of stage 2,
except for bicubic super-resolution, which has no warm-up; rate 2e-4, a tenth of it after 60 000. With `model.steps=0`
("no diffusion", ablation V1) CPEN_S2 learns the prior itself.

Joint phase: CPEN_S2, denoiser and DIRformer through the unrolled chain. The paper's recipe for deblurring: 300 000
steps, Adam (0.9, 0.99) at 2e-4, halved every 80 000.

Adversarial phase, for sharpness rather than PSNR: local contrast and a discriminator. In the paper for super-resolution
and inpainting: 400 000 steps at 2e-4, the discriminator at 1e-4, halved at 200 000, with VGG features as the perceptual
term and, for inpainting, the losses of LaMa. Ours has one set of losses for both, and local contrast (`detail_loss`) in
place of a network that would have to be downloaded.

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
from ...models.diffir import Teacher, completed
from ..data.photos import TrainingData
from ..loop.stage import AuxiliaryNetworks, StageDefinition, Validation, fixed
from ..losses import detail_loss
from .diffir_stage import DiffirRecipe, DiffirStage, Student, standardise, starting_pairs, validation

__all__ = [
    "ADVERSARIAL_STAGE",
    "JOINT_STAGE",
    "PRETRAIN_STAGE",
    "WARMUP_STAGE",
    "AdversarialRecipe",
    "AdversarialStage",
    "Discriminator",
    "JointRecipe",
    "JointStage",
    "Opponent",
    "PretrainStage",
    "WarmupStage",
    "real_loss",
]

LEAK = 0.2  # slope of every LeakyReLU
OCTAVES = 3  # halvings of the image: sides must be 8 pixels or more


class PretrainStage(DiffirStage):
    """Trains a `Teacher`."""

    kind = "diffir-pretrain"

    def __init__(self, recipe: DiffirRecipe, _earlier: Mapping[str, Checkpoint], data: TrainingData) -> None:
        self.teacher = Teacher(recipe.model)
        if recipe.model.prior_norm:
            standardise(self.teacher.cpen, *starting_pairs(data.train.at(0), recipe))
        super().__init__(recipe, self.teacher, data)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """L1 of the restored image."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        return {"loss": F.l1_loss(self.teacher(image, batch["clean"]).float(), batch["clean"])}

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB under the prior of the ground truth, the upper bound of stage 2, another photo's, and the mean."""
        assert isinstance(model, Teacher)
        pairs = self.pairs_for(model)
        return validation(pairs, [model.cpen(*pair) for pair in pairs], model.dirformer)


PRETRAIN_STAGE = StageDefinition(
    DiffirRecipe(steps=4000, batch=16, rate=1e-3, warmup=200, save_every=500), PretrainStage
)


class WarmupStage(Student):
    """Trains all of a `Diffir` but its DIRformer, which is that of stage 1."""

    kind = "diffir-warmup"

    def __init__(self, recipe: DiffirRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> None:
        super().__init__(recipe, earlier, data)
        earlier["diffir-pretrain"].fill(self.diffir.dirformer, "dirformer")
        if recipe.model.prior_norm:
            image, _ = starting_pairs(data.train.at(0), recipe)
            standardise(self.diffir.cpen, image)
        self.trained = {"cpen": 1.0, "denoiser": 1.0} if self.diffir.denoiser else {"cpen": 1.0}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean |Z^ - Z| (DiffIR, L_diff)."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        target, estimate = self.priors(image, batch)
        return {"loss": F.l1_loss(estimate, target)}


WARMUP_STAGE = StageDefinition(DiffirRecipe(steps=1500, batch=32, rate=1e-3, warmup=100, save_every=500), WarmupStage)


@dataclass(frozen=True)
class JointRecipe(DiffirRecipe):
    """How to train all of a DiffIR."""

    prior_weight: float = 1.0  # weight of the error of the prior; that of the image has 1


class JointStage(Student):
    """Trains all of a `Diffir`."""

    kind = "diffir"
    start = "diffir-warmup"  # the kind of checkpoint that it goes on from

    def __init__(self, recipe: JointRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> None:
        super().__init__(recipe, earlier, data)
        self.prior_weight = recipe.prior_weight
        earlier[self.start].fill(self.diffir)

    def regression(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The restored images, (N, 3, scale H, scale W), not clipped, and L1 of them + mean |Z^ - Z|."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        target, estimate = self.priors(image, batch)
        restored = self.diffir.restore(image, estimate).float()
        content = F.l1_loss(restored, batch["clean"])
        error = F.l1_loss(estimate, target)
        return restored, {"loss": content + self.prior_weight * error, "content": content, "prior": error}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """L1 of the restored image + mean |Z^ - Z|."""
        return self.regression(batch)[1]


JOINT_STAGE = StageDefinition(JointRecipe(steps=4000, batch=16, rate=5e-4, warmup=100, save_every=500), JointStage)


@dataclass(frozen=True)
class AdversarialRecipe(JointRecipe):
    """How to train against a discriminator; the terms are added to the loss of the joint phase."""

    detail: float = 1.0  # weight of the error of local contrast
    adversarial: float = 0.01  # weight of the discriminator's loss
    discriminator_rate: float = 1e-4
    discriminator_width: int = 16  # channels at full size
    counts = (*JointRecipe.counts, "discriminator_width")


class AdversarialStage(JointStage):
    """Trains all of a `Diffir` against a discriminator that learns with it."""

    start = "diffir"

    def __init__(self, recipe: AdversarialRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> None:
        super().__init__(recipe, earlier, data)
        self.detail, self.adversarial = recipe.detail, recipe.adversarial
        self.auxiliary = self.opponent = Opponent(self.made, recipe.discriminator_width, recipe.discriminator_rate)

    def made(self, batch: dict[str, Tensor]) -> Tensor:
        """The restored images of a batch as a user gets them, but not clipped."""
        return completed(batch["image"], self.regression(batch)[0])

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


ADVERSARIAL_STAGE = StageDefinition(
    AdversarialRecipe(steps=2000, batch=16, crop=96, rate=1e-4, warmup=100, save_every=500), AdversarialStage
)
