"""Residual blocks, and the U-Net of DTPM's networks that is built of one kind of them.

`ConvBlock` is a residual pair of plain 3x3 convolutions with ReLU, which phone processors run at full rate. The
older block is "Rep-edge": the same pair, each 3x3 trained with a second, factored branch (1x1 then 3x3) whose
product is added to the kernel in weight space, so training costs one convolution and deployment has one
(Bhardwaj et al., "Collapsible Linear Blocks for Super-Efficient Super Resolution", MLSys 2022). `NafBlock` is the
block of the `base` and `paper` sizes.

Tensors are (N, C, H, W); conditioning vectors (N, E).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.naf_block import Parameters, gate, naf_block
from ..errors import UnknownNameError, UsageError

__all__ = [
    "ConvBlock",
    "Module",
    "NafBlock",
    "RepBlock",
    "RepConv",
    "Unet",
    "UnetConfig",
    "conv3x3",
    "merge_branches",
    "replace_parts",
    "replaced",
    "sinusoid",
    "weights",
    "zero_",
]

Module = TypeVar("Module", bound=nn.Module)


def sinusoid(t: Tensor, size: int) -> Tensor:
    """Embed times t (N,) in [0, 1] as (N, size): sines and cosines of geometrically spaced frequencies up to 1000."""
    half = size // 2
    exponents = torch.arange(half, dtype=t.dtype, device=t.device) / max(half - 1, 1)
    angles = t[:, None] * 1000 * torch.exp(-math.log(1000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution, zero-padded."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class RepConv(nn.Module):
    """A 3x3 convolution, zero-padded, whose kernel is trained as direct + (3x3 after 1x1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.direct = conv3x3(inputs, outputs)
        self.reduce = nn.Parameter(torch.empty(inputs, inputs))  # the 1x1 branch, (M, inputs)
        self.expand = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))  # the 3x3 after it, (outputs, M, 3, 3)
        nn.init.orthogonal_(self.reduce)

    def kernel(self) -> Tensor:
        """The sum of both branches as one kernel, (outputs, inputs, 3, 3)."""
        return self.direct.weight + torch.einsum("omyx,mi->oiyx", self.expand, self.reduce)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns (N, outputs, H, W)."""
        return F.conv2d(x, self.kernel(), self.direct.bias, padding=1)

    def merged(self) -> nn.Conv2d:
        """The same function as a plain convolution, for export."""
        conv = conv3x3(self.direct.in_channels, self.direct.out_channels)
        conv.load_state_dict({"weight": self.kernel(), "bias": self.direct.bias})
        return conv


def zero_(layer: Module) -> Module:
    """The layer itself, with all its parameters set to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ConvBlock(nn.Module):
    """x + conv(relu(film(conv(x)))); without `embedding` there is no FiLM.

    The second convolution starts at zero: a fresh block is the identity.
    """

    make: Callable[[int, int], nn.Module] = staticmethod(conv3x3)

    def __init__(self, channels: int, hidden: int, embedding: int | None = None) -> None:
        super().__init__()
        self.first = self.make(channels, hidden)
        self.second = self.make(hidden, channels)
        self.film = None if embedding is None else nn.Linear(embedding, 2 * hidden)
        zero_(getattr(self.second, "direct", self.second))
        if self.film is not None:
            zero_(self.film)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x: (N, channels, H, W); embedding: (N, E), activated. Returns the shape of x."""
        h = self.first(x)
        if self.film is not None:
            scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.second(F.relu(h))


class RepBlock(ConvBlock):
    """A `ConvBlock` whose convolutions have a second branch during training."""

    make = RepConv


def weights(layer: nn.Conv2d | nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer, as the ops of `kernels` take them."""
    assert layer.bias is not None
    return layer.weight, layer.bias


class NafBlock(nn.Module):
    """NAFNet's block: x + beta * spatial(film(norm(x))), then the same with gamma and a pointwise half.

    Gates stand in for activations (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022); the
    time-conditioned normalisation follows Luo et al., "Refusion" (CVPRW 2023). beta and gamma start at zero: a fresh
    block is the identity. Without `embedding` there is no FiLM; with it, one linear layer of the gated embedding
    (`Unet.activated`) returns scale and shift of both halves. The channel attention averages over the whole input,
    so a tile of a photo gets slightly different features than the whole photo.
    """

    def __init__(self, channels: int, hidden: int, embedding: int | None = None) -> None:
        super().__init__()
        self.film = None if embedding is None else nn.Linear(embedding // 2, 4 * channels)
        self.spatial_norm = nn.LayerNorm(channels)  # only holds its parameters, as all layers here: the op computes
        self.spatial_in = nn.Conv2d(channels, 2 * hidden, 1)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.attention = nn.Conv2d(hidden, hidden, 1)
        self.spatial_out = nn.Conv2d(hidden, channels, 1)
        self.point_norm = nn.LayerNorm(channels)
        self.point_in = nn.Conv2d(channels, 2 * hidden, 1)
        self.point_out = nn.Conv2d(hidden, channels, 1)
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))
        if self.film is not None:
            zero_(self.film)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x: (N, channels, H, W); embedding: (N, E / 2), gated. Returns the shape of x."""
        film = None if self.film is None else self.film(embedding)
        parameters = Parameters(
            *weights(self.spatial_norm),
            *weights(self.spatial_in),
            *weights(self.depthwise),
            *weights(self.attention),
            *weights(self.spatial_out),
            self.beta,
            *weights(self.point_norm),
            *weights(self.point_in),
            *weights(self.point_out),
            self.gamma,
        )
        return naf_block(x, film, parameters)


class _Body(NamedTuple):
    block: Callable[..., nn.Module]  # (channels, hidden channels, length of the conditioning vectors or None)
    finest: int = 0  # downscale of the finest resolution; 0: as configured
    intro_side: int = 1  # of the first convolution's kernel
    activated: Callable[[Tensor], Tensor] = F.relu


BODIES = {"conv": _Body(ConvBlock), "rep": _Body(RepBlock, 2), "naf": _Body(NafBlock, 1, 3, gate)}


@dataclass(frozen=True)
class UnetConfig:
    """Sizes of a `Unet`. Raises UnknownNameError for a body that is not in BODIES."""

    body: str = "rep"  # kind of the blocks; "naf" has them from the full resolution on, "rep" from half of it
    widths: tuple[int, ...] = (32, 64)  # channels per resolution, finest first
    blocks: tuple[int, ...] = (1, 2)  # per resolution of the encoder; the last entry is the middle
    decoder: tuple[int, ...] = ()  # blocks per resolution of the decoder, coarsest first; empty: the encoder mirrored
    expansion: float = 1.0  # hidden channels of a block / its channels
    finest: int = field(default=2, kw_only=True)  # downscale of the finest resolution of the body "conv"

    def __post_init__(self) -> None:
        if self.body == "naf-edge":
            raise UsageError(
                "the body 'naf-edge' was removed: it was slower than 'rep' in int8 and bf16 (docs/edge-blocks.md); "
                f"train the model again with one of: {', '.join(BODIES)}"
            )
        if self.body not in BODIES:
            raise UnknownNameError("body", self.body, BODIES)


class Unet(nn.Module):
    """The U-Net of all DTPM networks: pixel-unshuffle by `finest`, blocks of one kind, pixel-shuffle.

    Downs are 2x2 convolutions of stride 2, ups 1x1 convolutions and a pixel shuffle; skips are added. inputs, outputs:
    channels of the input and output image. embedding: length of the conditioning vectors; None for a network without
    FiLM. Raises UsageError if the lists of the configuration do not fit one another.
    """

    def __init__(self, config: UnetConfig, inputs: int, outputs: int, embedding: int | None = None) -> None:
        super().__init__()
        widths, blocks, decoder = config.widths, config.blocks, config.decoder or config.blocks[-2::-1]
        if len(widths) != len(blocks) or len(decoder) != len(blocks) - 1:
            raise UsageError(
                f"widths and blocks must have one entry per resolution, decoder one less, got {widths}, {blocks}, "
                f"{decoder}"
            )
        self.body = BODIES[config.body]
        self.finest = self.body.finest or config.finest

        def stage(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(self.body.block(width, int(width * config.expansion), embedding) for _ in range(count))

        side, cell = self.body.intro_side, self.finest**2
        intro, end = nn.Conv2d(cell * inputs, widths[0], side, padding=side // 2), conv3x3(widths[0], cell * outputs)
        self.unshuffle = nn.PixelUnshuffle(self.finest)
        self.intro = intro
        self.encoder = nn.ModuleList(stage(w, n) for w, n in zip(widths[:-1], blocks[:-1], strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.middle = stage(widths[-1], blocks[-1])
        self.ups = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.decoder = nn.ModuleList(stage(w, n) for w, n in zip(widths[-2::-1], decoder, strict=True))
        self.end = end
        self.multiple_of = self.finest * 2 ** (len(widths) - 1)
        counts = [*zip(widths, blocks, strict=True), *zip(widths[-2::-1], decoder, strict=True)]
        scales = [self.finest * 2**i for i in range(len(widths))]
        # (channels, downscale) of the feature that leaves each block, in the order in which the blocks run.
        self.features = [
            (width, scale)
            for (width, count), scale in zip(counts, scales + scales[-2::-1], strict=True)
            for _ in range(count)
        ]

    def activated(self, embedding: Tensor) -> Tensor:
        """The input of the blocks' FiLM layers for a conditioning vector (N, E): (N, E), or (N, E / 2) if gated."""
        return self.body.activated(embedding)

    def forward(
        self,
        image: Tensor,
        embedding: Tensor | None = None,
        decoder_embedding: Tensor | None = None,
        adapters: Iterable[nn.Module] | None = None,
        guidance: Any = None,
        entry: Tensor | None = None,
    ) -> Tensor:
        """The output image (N, outputs, H, W) of an image (N, inputs, H, W); sides are multiples of `multiple_of`.

        `embedding` conditions the encoder, `decoder_embedding` the middle and the decoder; both are `activated`.
        adapters: one per block; each gets the feature that leaves its block, and `guidance`. entry: (N, widths[0],
        H / finest, W / finest), added to the features that enter the first block.
        """
        following = iter(adapters or ())

        def run(blocks: nn.Module, x: Tensor, vector: Tensor | None) -> Tensor:
            for block in blocks.children():
                x = block(x, vector)
                if adapters is not None:
                    x = next(following)(x, guidance)
            return x

        x = self.intro(self.unshuffle(image))
        if entry is not None:
            x = x + entry
        # Encoder.
        skips = []
        for blocks, down in zip(self.encoder, self.downs, strict=True):
            x = run(blocks, x, embedding)
            skips.append(x)
            x = down(x)
        # Middle and decoder.
        x = run(self.middle, x, decoder_embedding)
        for blocks, up in zip(self.decoder, self.ups, strict=True):
            x = F.pixel_shuffle(up(x), 2) + skips.pop()
            x = run(blocks, x, decoder_embedding)
        return F.pixel_shuffle(self.end(x), self.finest)


def replace_parts(
    module: nn.Module,
    makers: Mapping[type[nn.Module], Callable[..., nn.Module]],
    made: dict[nn.Module, nn.Module] | None = None,
) -> None:
    """Replace, in place, every part of `module` whose type is in `makers` by what its maker returns for it.

    A part that is used in two places stays one. Parts of a replaced part are left to its maker.
    """
    made = {} if made is None else made
    for name, child in list(module.named_children()):
        if type(child) in makers:
            made[child] = made.get(child) or makers[type(child)](child)
            setattr(module, name, made[child])
        else:
            replace_parts(child, makers, made)


def replaced(module: Module, makers: Mapping[type[nn.Module], Callable[..., nn.Module]]) -> Module:
    """A copy of `module` in evaluation mode without gradients, with the parts that `replace_parts` replaces."""
    module = copy.deepcopy(module)
    replace_parts(module, makers)
    return module.eval().requires_grad_(False)


def merge_branches(module: Module) -> Module:
    """A copy of `module` in which every re-parameterised convolution is one plain convolution (exact)."""
    return replaced(module, {RepConv: RepConv.merged})
