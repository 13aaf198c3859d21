"""DiffIR: Efficient Diffusion Model for Image Restoration (Xia et al., ICCV 2023).

Only a short vector is diffused, the prior (IPR) Z of an image. In the first stage an estimator that also gets the
ground truth, CPEN_S1, predicts Z, and a transformer, the DIRformer, learns to restore under it. In the second a like
estimator that only gets the damaged image, CPEN_S2, predicts a condition D under which a small network denoises Z from
noise in T = 4 steps: restored = DIRformer(image, Z^).

With `prior_norm` (ours; on at size `mobile`) Z has a root mean square of 1, its estimates are not bounded below, and
scales in the DIRformer start around 1. In the published form the error of Z is small compared with that of the image,
and Z tends to become the same for all photos: the transformer depends only on what they share.

Restored images are (N, 3, H, W) in [0, 1]; the input `image` is one too, or for inpainting (N, 4, H, W) with the mask
of the missing pixels (1 = missing) as fourth channel. Vectors are (N, ipr). Sides are multiples of
`Diffir.multiple_of`; the caller pads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from ..sampling import schedule
from ..sampling.samplers import posterior_mean
from .dirformer import Dirformer, DirformerConfig

__all__ = [
    "CONFIGS",
    "Cpen",
    "CpenConfig",
    "CpenS1",
    "CpenS2",
    "Diffir",
    "DiffirConfig",
    "PriorDenoiser",
    "ResidualBlock",
    "Teacher",
    "UnitRms",
    "completed",
    "composed",
    "cost_parts",
    "sampled",
]

CLEAN_FOLD = 4  # the ground truth is pixel-unshuffled by this: the estimators work at a quarter of its size
LEAKY_SLOPE = 0.1  # slope of every LeakyReLU
RMS_EPS = 1e-6  # added to a mean square
PERIOD = 10  # the timestep conditioning is t / (PERIOD * steps)


@dataclass(frozen=True)
class CpenConfig:
    """Sizes of the prior estimators ("compact IR prior extraction network")."""

    width: int = 64  # channels of the residual blocks; the pooled feature has four times as many
    blocks: int = 5  # residual blocks


@dataclass(frozen=True)
class DiffirConfig:
    """All parts of one DiffIR."""

    inputs: int = 3  # channels of the image: 3, or 4 with a mask
    scale: int = 1  # side of the restored image / side of the input: 1, 2 or 4
    ipr: int = 256  # length of the prior vector
    steps: int = 4  # T of the diffusion; 0: the condition vector is the prior (ablation "no diffusion", V1)
    prior_norm: bool = False  # True: a prior of unit rms, estimates of any sign, a bias in the modulations
    cpen: CpenConfig = field(default_factory=CpenConfig)
    dirformer: DirformerConfig = field(default_factory=DirformerConfig)

    @property
    def multiple_of(self) -> int:
        """The sides of an image must be multiples of this."""
        return max(self.dirformer.multiple_of, CLEAN_FOLD // self.scale)

    def __post_init__(self) -> None:
        if self.inputs not in (3, 4):
            raise UsageError(f"DiffIR's inputs must be 3 (an image) or 4 (with a mask), got {self.inputs}")
        if self.scale not in (1, 2, 4):
            raise UsageError(f"DiffIR's scale must be 1, 2 or 4, got {self.scale}")
        if self.steps < 0:
            raise UsageError(f"DiffIR's steps must be 0 (no diffusion) or more, got {self.steps}")


def _sr(scale: int) -> DiffirConfig:
    """The super-resolution network: image unshuffled so that the body runs at a quarter of the output's size."""
    body = DirformerConfig(
        width=64,
        blocks=(13, 1, 1, 1),
        refinement=13,
        expansion=2.2,
        norm_bias=False,
        unshuffle=CLEAN_FOLD // scale,
        upsampler=True,
    )
    return DiffirConfig(scale=scale, cpen=CpenConfig(blocks=9), dirformer=body)


def _inpainting(middle: int, cpen_blocks: int) -> DiffirConfig:
    body = DirformerConfig(width=52, blocks=(1, 1, 1, middle), refinement=0, expansion=1.8)
    return DiffirConfig(inputs=4, cpen=CpenConfig(blocks=cpen_blocks), dirformer=body)


CONFIGS: dict[str, DiffirConfig] = {
    "deblur": DiffirConfig(),
    "sr": _sr(4),
    "sr2": _sr(2),
    "sr1": _sr(1),
    "inpainting": _inpainting(9, 5),
    "inpainting-challenge": _inpainting(20, 8),
    # Ours: 39 kMAC per pixel in all (36 of them the DIRformer), 1.3 M parameters.
    "mobile": DiffirConfig(
        ipr=64,
        cpen=CpenConfig(width=16, blocks=2),
        dirformer=DirformerConfig(width=32, blocks=(1, 1, 3), heads=(1, 2, 4), refinement=0, unshuffle=2, narrow=True),
        prior_norm=True,
    ),
}


class ResidualBlock(nn.Module):
    """x + conv(leaky_relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns the shape of x."""
        return x + self.second(F.leaky_relu(self.first(x), LEAKY_SLOPE))


class UnitRms(nn.Module):
    """Divides vectors by their root mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, K). Returns the shape of x."""
        return x * torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + RMS_EPS)


def _leaky_conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(LEAKY_SLOPE)]


class Cpen(nn.Module):
    """Features at a quarter of the output's size (N, channels, h, w) -> vector (N, ipr).

    Two parts, so that tiles of one photo can share one vector: `pooled` is an average over pixels, so that its values
    for tiles, averaged by area, are those of the whole photo except for the effect of tile borders on convolutions;
    `head` follows and ends in `last`. Channels are those of the unshuffled image and `others`.
    """

    def __init__(self, config: DiffirConfig, last: nn.Module, others: int = 0) -> None:
        super().__init__()
        width, pooled = config.cpen.width, 4 * config.cpen.width
        self.fold = CLEAN_FOLD // config.scale
        self.convs = nn.Sequential(
            *_leaky_conv(config.inputs * self.fold**2 + others, width),
            *(ResidualBlock(width) for _ in range(config.cpen.blocks)),
            *_leaky_conv(width, 2 * width),
            *_leaky_conv(2 * width, 2 * width),
            *_leaky_conv(2 * width, pooled),
        )
        self.head = nn.Sequential(
            nn.Linear(pooled, pooled), nn.LeakyReLU(LEAKY_SLOPE), nn.Linear(pooled, config.ipr), last
        )

    def pooled(self, x: Tensor) -> Tensor:
        """The average of the features over the pixels, (N, 4 width)."""
        return self.convs(x).mean(dim=(2, 3))


class CpenS1(Cpen):
    """The estimator of stage 1, which gets the ground truth. Its vector is the target of stage 2."""

    def __init__(self, config: DiffirConfig) -> None:
        last = UnitRms() if config.prior_norm else nn.LeakyReLU(LEAKY_SLOPE)
        super().__init__(config, last, 3 * CLEAN_FOLD**2)

    def forward(self, image: Tensor, clean: Tensor) -> Tensor:
        """Z (N, ipr) of an image (N, inputs, H, W) and its ground truth (N, 3, scale H, scale W)."""
        parts = [F.pixel_unshuffle(image, self.fold), F.pixel_unshuffle(clean, CLEAN_FOLD)]
        return self.head(self.pooled(torch.cat(parts, dim=1)))


def _last(config: DiffirConfig) -> nn.Module:
    """The last layer of an estimate of the prior: with `prior_norm` none, as the sign of the prior is free."""
    return nn.Identity() if config.prior_norm else nn.LeakyReLU(LEAKY_SLOPE)


class CpenS2(Cpen):
    """The estimator of stage 2, which only gets the image. Its vector is the condition of the denoiser."""

    def __init__(self, config: DiffirConfig) -> None:
        super().__init__(config, _last(config))
        self.unshuffle = nn.PixelUnshuffle(self.fold)

    def features(self, image: Tensor) -> Tensor:
        """The features averaged over the image (N, inputs, H, W): (N, 4 width). For tiles, average by area."""
        return self.pooled(self.unshuffle(image))

    def forward(self, image: Tensor) -> Tensor:
        """The condition D (N, ipr) of a whole image."""
        return self.head(self.features(image))


class PriorDenoiser(nn.Module):
    """(condition, t / (10 T), noisy vector) -> clean vector: two linear layers with LeakyReLU.

    In the paper's text it predicts the noise; its authors' experiments favour the clean vector, as here.
    """

    def __init__(self, config: DiffirConfig) -> None:
        super().__init__()
        ipr = config.ipr
        self.layers = nn.Sequential(
            nn.Linear(2 * ipr + 1, ipr), nn.LeakyReLU(LEAKY_SLOPE), nn.Linear(ipr, ipr), _last(config)
        )

    def forward(self, condition: Tensor, time: Tensor, x: Tensor) -> Tensor:
        """condition, x: (N, ipr); time: (N, 1). Returns (N, ipr)."""
        return self.layers(torch.cat([condition, time, x], dim=1))


def _dirformer(config: DiffirConfig) -> Dirformer:
    return Dirformer(config.dirformer, config.inputs, config.scale, config.ipr, bias=config.prior_norm)


def completed(image: Tensor, restored: Tensor) -> Tensor:
    """A network's output, with the known pixels of the image in their place if it has a mask; not clipped."""
    if image.shape[1] == 3:
        return restored
    mask = image[:, 3:]
    return mask * restored + (1 - mask) * image[:, :3]


def composed(image: Tensor, restored: Tensor) -> Tensor:
    """The restored image from a network's output: `completed`, clipped to [0, 1]."""
    return completed(image, restored).clamp(0, 1)


def sampled(denoiser: PriorDenoiser, condition: Tensor, noise: Tensor, levels: Sequence[float]) -> Tensor:
    """The prior Z^ (N, ipr) from `noise` (N, ipr) under `condition` (N, ipr), by all steps of `levels`."""
    steps = len(levels) - 1

    def denoise(x: Tensor, step: int) -> Tensor:
        time = x.new_full((len(x), 1), (steps - 1 - step) / (PERIOD * steps))
        return denoiser(condition, time, x)

    return posterior_mean(denoise, noise, levels)


class Teacher(nn.Module):
    """Stage 1: CPEN_S1, which gets the ground truth, and the DIRformer that restores under its prior."""

    def __init__(self, config: DiffirConfig) -> None:
        super().__init__()
        self.config = config
        self.cpen = CpenS1(config)
        self.dirformer = _dirformer(config)

    def forward(self, image: Tensor, clean: Tensor) -> Tensor:
        """The restored image, not clipped: the upper bound for stage 2."""
        return self.dirformer(image, self.cpen(image, clean))


class Diffir(nn.Module):
    """Stage 2, the deployed model: CPEN_S2, the denoiser of the prior and the DIRformer.

    For a photo in tiles the prior is computed once: the average by area of `cpen.features` of the tiles, `cpen.head`,
    `prior`; then every tile is restored under it.
    """

    def __init__(self, config: DiffirConfig) -> None:
        super().__init__()
        self.config = config
        self.cpen = CpenS2(config)
        self.denoiser = PriorDenoiser(config) if config.steps else None
        self.dirformer = _dirformer(config)
        alpha_bars = schedule.diffir(config.steps) if config.steps else []
        self.levels = (*reversed(alpha_bars), 1.0)  # alpha_bar_T .. alpha_bar_1, clean
        self.multiple_of = config.multiple_of

    def condition(self, image: Tensor) -> Tensor:
        """The condition D (N, ipr) of an image."""
        return self.cpen(image)

    def prior(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Z^ (N, ipr), by the T reverse steps from `noise` (N, ipr); no noise is added between them.

        Without diffusion (steps = 0) the condition is the prior and `noise` is not used.
        """
        return condition if self.denoiser is None else sampled(self.denoiser, condition, noise, self.levels)

    def restore(self, image: Tensor, prior: Tensor) -> Tensor:
        """The restored image (N, 3, scale H, scale W) under a prior, not clipped.

        With `condition(image)` as the prior this is the ablation "no diffusion" on weights that were trained with
        diffusion; for weights trained without it, set the configuration's `steps` to 0.
        """
        return self.dirformer(image, prior)

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """image: (N, inputs, H, W); noise: (N, ipr), standard normal. Returns (N, 3, scale H, scale W) in [0, 1]."""
        return composed(image, self.restore(image, self.prior(self.condition(image), noise)))


def cost_parts(config: DiffirConfig) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Each part with inputs to count its cost on: an image of 256 x 256 pixels, on the current default device."""
    side = 256
    image, vector = torch.empty(1, config.inputs, side, side), torch.empty(1, config.ipr)
    clean = torch.empty(1, 3, side * config.scale, side * config.scale)
    model = Diffir(config)
    parts: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "cpen_s1": (CpenS1(config), (image, clean)),
        "cpen_s2": (model.cpen, (image,)),
        "dirformer": (model.dirformer, (image, vector)),
    }
    if model.denoiser is not None:
        parts["denoiser"] = (model.denoiser, (vector, torch.empty(1, 1), vector))
    return parts
