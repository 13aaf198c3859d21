"""Gen2Res: Restoration by Generation with Constrained Priors (CVPR 2024).

An unconditional pixel-space diffusion model, fine-tuned on an album (a person's photos, or images generated around the
damaged one), restores a photo by noising it to a middle level K and denoising from there. No pairs, no condition.
Ours, and not the paper's: the noise that a photo has already is counted, so that it is noised less, or not at all.

The network is the U-Net of Dhariwal and Nichol, "Diffusion Models Beat GANs" (NeurIPS 2021), with the learned variance
of Nichol and Dhariwal, "Improved DDPM" (ICML 2021). `mobile` is a smaller U-Net of the same blocks. The sampled state
is the image in [-1, 1]; public images are in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import group_norm_silu
from ..errors import CheckpointError, UnknownNameError, UsageError
from ..pack.systems import SYSTEMS
from ..sampling.samplers import ancestral, clipped, ddim
from ..sampling.steps import EnteredChain, enter, unclipped
from .blocks import sinusoid, zero_
from .checkpoints import Checkpoint, from_dict, load
from .lora import add_lora, merge_lora

__all__ = [
    "CONFIGS",
    "NOISIEST",
    "SHIPPED_BASE",
    "USUAL_STEPS",
    "Attention",
    "Denoiser",
    "Downsample",
    "Gen2ResConfig",
    "NormSilu",
    "ResBlock",
    "Upsample",
    "build",
    "cost_parts",
    "load_base",
    "merged",
    "predictions",
    "restore",
]


SHIPPED_BASE = Path(__file__).parent / "weights" / "gen2res-mobile.safetensors"
NOISIEST = 300  # of 1000 levels, the noisiest at which a photo may enter: noise of 157 grey levels
USUAL_STEPS = 8  # from there on, of DDIM
MIDDLE = 2  # residual blocks at the coarsest resolution of the compact U-Net


@dataclass(frozen=True)
class Gen2ResConfig:
    """Sizes of the denoiser."""

    widths: tuple[int, ...] = (128, 128, 256, 256, 512, 512)  # channels per resolution, each half of the one before
    blocks: int = 2  # residual blocks per resolution of the encoder
    attention: tuple[int, ...] = (16,)  # downscales at which blocks are followed by attention (16 of 256 is 16x16)
    unshuffle: int = 1  # the finest resolution is 1 / unshuffle of the image's
    compact: bool = False  # one skip per resolution and plain resampling, instead of ADM's skip per block
    embedding: int = 512  # length of the time embedding
    groups: int = 32  # of the group normalisation
    dropout: float = 0.1
    lora: int = 0  # rank of the factors of each convolution and linear layer; 0 for none


CONFIGS = {
    "paper": Gen2ResConfig(),
    "base": Gen2ResConfig(widths=(40, 40, 80, 80, 160, 160), embedding=160, groups=8),
    "mobile": Gen2ResConfig(
        widths=(48, 80, 112), blocks=1, attention=(), unshuffle=2, compact=True, embedding=128, groups=8, dropout=0.0
    ),
}


class NormSilu(nn.Module):
    """Group normalisation, then scale and shift per sample and channel (FiLM) where given, then SiLU."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor, film: Tensor | None = None) -> Tensor:
        """x: (N, C, H, W). film: (N, 2 C), scale - 1 then shift; None for neither. Returns the shape of x."""
        return group_norm_silu(x, self.norm.num_groups, self.norm.weight, self.norm.bias, film)


class Attention(nn.Module):
    """x + projection of self-attention over all positions, one head. The projection starts at zero."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = zero_(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns the shape of x."""
        # With the axis of the one head, (N, 1, H W, C): the ONNX exporter takes no other form.
        query, key, value = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=3)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.project(mixed[:, 0].transpose(1, 2).reshape(x.shape))


class ResBlock(nn.Module):
    """skip(x) + conv(dropout(norm_silu(conv(resample(norm_silu(x))), film))), then attention where wanted.

    `resample` works on both branches. The second convolution starts at zero.
    """

    def __init__(
        self,
        config: Gen2ResConfig,
        inputs: int,
        outputs: int,
        resample: Callable[[Tensor], Tensor] | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.resample = resample or nn.Identity()
        self.enter = NormSilu(config.groups, inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(config.embedding, 2 * outputs)
        self.middle = NormSilu(config.groups, outputs)
        self.dropout = nn.Dropout(config.dropout)
        self.second = zero_(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.attention = Attention(config.groups, outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: (N, inputs, H, W); time: (N, embedding). Returns (N, outputs, H', W')."""
        h = self.first(self.resample(self.enter(x)))
        h = self.second(self.dropout(self.middle(h, self.film(time))))
        return self.attention(self.skip(self.resample(x)) + h)


class Downsample(nn.Module):
    """Half the resolution by a 2x2 convolution; the counterpart of `Upsample` in the compact U-Net."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor, _time: Tensor) -> Tensor:
        """x: (N, inputs, H, W) -> (N, outputs, H / 2, W / 2); the time is not used."""
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the resolution by a 1x1 convolution and pixel-shuffle."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 1)

    def forward(self, x: Tensor, _time: Tensor) -> Tensor:
        """x: (N, inputs, H, W) -> (N, outputs, 2 H, 2 W); the time is not used."""
        return F.pixel_shuffle(self.conv(x), 2)


class Denoiser(nn.Module):
    """eps_theta(x_t, t) with learned variance.

    Height and width of its input must be multiples of `multiple_of`. Raises UsageError for widths that do not divide
    into the groups of the normalisation.
    """

    def __init__(self, config: Gen2ResConfig) -> None:
        super().__init__()
        if config.groups < 1 or any(width % config.groups for width in config.widths):
            raise UsageError(f"widths must be multiples of groups, got {config.widths} and {config.groups}")
        self.config = config
        widths, size, fold = config.widths, config.embedding, config.unshuffle
        self.multiple_of = fold * 2 ** (len(widths) - 1)
        self.time = nn.Sequential(nn.Linear(size // 4, size), nn.SiLU(), nn.Linear(size, size))
        self.unshuffle = nn.PixelUnshuffle(fold)
        self.intro = nn.Conv2d(3 * fold**2, widths[0], 3, padding=1)
        layers = _compact(config) if config.compact else _adm(config)
        self.encoder = nn.ModuleList(layers.encoder)
        self.middle = nn.ModuleList(layers.middle)
        self.decoder = nn.ModuleList(layers.decoder)
        self.kept, self.joined = layers.kept, layers.joined
        self.leave = NormSilu(config.groups, widths[0])
        self.end = zero_(nn.Conv2d(widths[0], 6 * fold**2, 3, padding=1))
        if config.lora:
            add_lora(self, config.lora)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise and the variance of the next step; x: (N, 3, H, W), the state: images in [-1, 1].

        t: (N,) in (0, 1], time / training steps. Returns (N, 6, H, W): the noise eps, then the share s of the
        variance's range, -1 for beta~ and 1 for beta (Improved DDPM, Eq. 15, with v = (s + 1) / 2).
        """
        time = F.silu(self.time(sinusoid(t, self.config.embedding // 4)))
        x = self.intro(self.unshuffle(x))
        # Encoder.
        skips = [] if self.config.compact else [x]
        for layer, kept in zip(self.encoder, self.kept, strict=True):
            x = layer(x, time)
            if kept:
                skips.append(x)
        # Middle and decoder.
        for layer in self.middle:
            x = layer(x, time)
        for layer, joined in zip(self.decoder, self.joined, strict=True):
            x = layer(torch.cat([x, skips.pop()], dim=1) if joined else x, time)
        return F.pixel_shuffle(self.end(self.leave(x)), self.config.unshuffle)


class _Layers(NamedTuple):
    """The layers of a U-Net, all called as (x, time): `kept` outputs of the encoder are `joined` in the decoder."""

    encoder: list[nn.Module]
    kept: list[bool]
    middle: list[nn.Module]
    decoder: list[nn.Module]
    joined: list[bool]


def _adm(config: Gen2ResConfig) -> _Layers:
    """ADM: every output of the encoder is a skip, the decoder has one block more per resolution, blocks resample."""
    last = len(config.widths) - 1
    attended = [config.unshuffle * 2**i in config.attention for i in range(last + 1)]
    encoder: list[nn.Module] = []
    widths = [config.widths[0]]  # of the skips, the output of `intro` first
    for i, width in enumerate(config.widths):
        for _ in range(config.blocks):
            encoder.append(ResBlock(config, widths[-1], width, attention=attended[i]))
            widths.append(width)
        if i < last:
            encoder.append(ResBlock(config, width, width, resample=nn.AvgPool2d(2)))
            widths.append(width)
    x = widths[-1]
    middle: list[nn.Module] = [ResBlock(config, x, x, attention=True), ResBlock(config, x, x)]
    decoder: list[nn.Module] = []
    joined: list[bool] = []
    for i, width in reversed(list(enumerate(config.widths))):
        for _ in range(config.blocks + 1):
            decoder.append(ResBlock(config, x + widths.pop(), width, attention=attended[i]))
            x = width
        joined += [True] * (config.blocks + 1)
        if i:
            decoder.append(ResBlock(config, width, width, resample=nn.Upsample(scale_factor=2)))
            joined.append(False)
    return _Layers(encoder, [True] * len(encoder), middle, decoder, joined)


def _compact(config: Gen2ResConfig) -> _Layers:
    """One skip per resolution, plain resampling, as many blocks in the decoder as in the encoder; no attention."""
    encoder: list[nn.Module] = []
    decoder: list[nn.Module] = []
    for width, wider in pairwise(config.widths):
        blocks = [ResBlock(config, width, width) for _ in range(config.blocks)]
        encoder += [*blocks, Downsample(width, wider)]
        joining = ResBlock(config, 2 * width, width)
        decoder = [Upsample(wider, width), joining, *(ResBlock(config, width, width) for _ in blocks[1:]), *decoder]
    joins = len(config.widths) - 1
    lowest = config.widths[-1]
    middle: list[nn.Module] = [ResBlock(config, lowest, lowest) for _ in range(MIDDLE)]
    kept = ([False] * (config.blocks - 1) + [True, False]) * joins
    joined = ([False, True] + [False] * (config.blocks - 1)) * joins
    return _Layers(encoder, kept, middle, decoder, joined)


def predictions(denoiser: Denoiser, times: Sequence[float]) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """The `denoise` of `ancestral`: (x, step index) -> (eps, share of the variance's range)."""

    def predict(x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        eps, share = denoiser(x, x.new_full((len(x),), times[step])).chunk(2, dim=1)
        return eps, share

    return predict


def restore(
    denoiser: Denoiser,
    image: Tensor,
    noise: Callable[[int], Tensor],
    levels: Sequence[float],
    times: Sequence[float],
    sampler: str = "ancestral",
    *,
    start_level: float | None = None,
    sigma: float = 0.0,
) -> Tensor:
    """Restore images (N, 3, H, W) in [0, 1], sides multiples of `multiple_of`: enter the levels with them, denoise.

    There is no guidance, as in the paper. Raises UnknownNameError for another sampler.

    noise: number -> standard normal values of the shape of image; 0 is the start's, i + 1 that of step i; only called
    where noise is added. levels: alpha_bar per step from level K, then 1.0 (the paper's K is 200 of 1000, in 200
    steps). times: one per step, as `schedule.strided` returns them. sampler: "ancestral" with the learned variance (the
    paper's), or "ddim", which is deterministic but for its start and needs few steps. start_level: as in `steps.enter`;
    None noises the image to levels[0], as the paper does. sigma: standard deviation of the noise that the images have,
    in [0, 1] units.
    """
    valid = SYSTEMS["gen2res"].samplers
    if sampler not in valid:
        raise UnknownNameError("sampler", sampler, valid)
    photo, sigma = image * 2 - 1, 2 * sigma
    entry = enter(levels, times, start_level, sigma)
    if entry.exact and entry.times:
        photo = unclipped(photo, _sampled(denoiser, photo, noise, entry.first(), sampler), sigma)
    return (_sampled(denoiser, photo, noise, entry, sampler) * 0.5 + 0.5).clamp(0, 1)


def _sampled(
    denoiser: Denoiser, photo: Tensor, noise: Callable[[int], Tensor], entry: EnteredChain, sampler: str
) -> Tensor:
    """The end of the chain that the photo's state enters."""
    x = math.sqrt(entry.levels[0]) * photo
    if entry.added:
        x = x + entry.added * noise(0)
    predict = predictions(denoiser, entry.times)
    if sampler == "ancestral":
        return ancestral(predict, x, entry.levels, lambda i: noise(i + 1), variance="learned", clip=clipped)
    return ddim(lambda x, i: predict(x, i)[0], x, entry.levels, "eps", clip=clipped)


def load_base(path: Path | None) -> Checkpoint:
    """The unconditional base at `path`; None for the one in the package.

    Raises CheckpointError when there is none, or the file is damaged or of another kind.
    """
    if path is None and not SHIPPED_BASE.exists():
        raise CheckpointError(
            "this installation has no base model; train one with 'pocketprior train gen2res base --data PHOTOS "
            "--out RUN' and give RUN/model.safetensors with --base"
        )
    return load(path or SHIPPED_BASE, "gen2res")


def build(checkpoint: Checkpoint) -> Denoiser:
    """The denoiser that a "gen2res" checkpoint holds, LoRA factors multiplied in, ready to run.

    Raises CheckpointError for a configuration of another model, and for tensors that do not fit it.
    """
    denoiser = checkpoint.fill(Denoiser(from_dict(Gen2ResConfig, checkpoint.config)))
    return merged(denoiser).eval().requires_grad_(False)


def merged(denoiser: Denoiser) -> Denoiser:
    """A copy whose low-rank factors are multiplied into its weights, with `lora` 0 in its configuration."""
    plain = merge_lora(denoiser)
    plain.config = replace(denoiser.config, lora=0)
    return plain


def cost_parts(config: Gen2ResConfig) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Each part with inputs to count its cost on: an image of 256 x 256 pixels, on the current default device."""
    return {"denoiser": (Denoiser(config), (torch.zeros(1, 3, 256, 256), torch.ones(1)))}
