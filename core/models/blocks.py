"""Blocks that models share, and the U-Net they are put into.

`ConvBlock` is a residual pair of plain 3x3 convolutions with ReLU: what processors of phones run at full rate. The
older block is "Rep-edge": the same pair, each 3x3 trained with a second, factored branch (1x1 then 3x3) whose
product is added to the kernel in weight space, so training costs one convolution and deployment has one
(Bhardwaj et al., "Collapsible Linear Blocks for Super-Efficient Super Resolution", MLSys 2022).

Tensors are (N, C, H, W); conditioning vectors (N, E).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError

__all__ = [
    "ConvBlock",
    "ConvUnet",
    "Module",
    "RepBlock",
    "RepConv",
    "Unet",
    "UnetBody",
    "conv3x3",
    "merge_branches",
    "replaced",
    "sinusoid",
    "weights",
]

Module = TypeVar("Module", bound=nn.Module)


def sinusoid(t: Tensor, size: int) -> Tensor:
    """Embed times t (N,) in [0, 1] as (N, size): sines and cosines of geometrically spaced frequencies up to 1000."""
    half = size // 2
    exponents = torch.arange(half, dtype=t.dtype, device=t.device) / max(half - 1, 1)
    angles = t[:, None] * 1000 * torch.exp(-math.log(1000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class RepConv(nn.Module):
    """A 3x3 convolution, zero-padded, whose kernel is trained as direct + (3x3 after 1x1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.direct = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.reduce = nn.Parameter(torch.empty(inputs, inputs))  # the 1x1 branch, (M, inputs)
        self.expand = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))  # the 3x3 after it, (outputs, M, 3, 3)
        nn.init.orthogonal_(self.reduce)

    def kernel(self) -> Tensor:
        """The one kernel that both branches amount to, (outputs, inputs, 3, 3)."""
        return self.direct.weight + torch.einsum("omyx,mi->oiyx", self.expand, self.reduce)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), self.direct.bias, padding=1)

    def merged(self) -> nn.Conv2d:
        """The same function as a plain convolution, for export."""
        outputs, inputs = self.expand.shape[:2]
        conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        conv.weight.data.copy_(self.kernel().detach())
        assert conv.bias is not None
        assert self.direct.bias is not None
        conv.bias.data.copy_(self.direct.bias.detach())
        return conv


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution, zero-padded."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


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
        for parameter in getattr(self.second, "direct", self.second).parameters():
            nn.init.zeros_(parameter)
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.first(x)
        if self.film is not None:
            scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.second(F.relu(h))


class RepBlock(ConvBlock):
    """A `ConvBlock` whose convolutions are trained with a second branch."""

    make = RepConv


def weights(layer: nn.Conv2d | nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that an op of `kernels` computes."""
    assert layer.bias is not None
    return layer.weight, layer.bias


class UnetBody(nn.Module):
    """The U-Net that every block is put into; `intro` and `end` join it to pictures.

    widths: channels per level, finest first; blocks: per encoder level, the last entry is the middle; decoder: per
    decoder level, coarsest first, empty for the encoder mirrored. Downs are 2x2 convolutions of stride 2, ups 1x1
    convolutions and a pixel shuffle, skips are added. finest: downscale of the finest level, by pixel-unshuffle.
    Raises UsageError when the lists do not fit one another.
    """

    def __init__(
        self,
        intro: nn.Module,
        end: nn.Module,
        block: Callable[[int], nn.Module],
        widths: Sequence[int],
        blocks: Sequence[int],
        decoder: Sequence[int],
        finest: int,
    ) -> None:
        super().__init__()
        decoder = decoder or blocks[-2::-1]
        if len(widths) != len(blocks) or len(decoder) != len(blocks) - 1:
            raise UsageError(
                f"widths and blocks must have one entry per level, decoder one less, got {widths}, {blocks}, {decoder}"
            )

        def stage(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(block(width) for _ in range(count))

        self.finest = finest
        self.intro = intro
        self.encoder = nn.ModuleList(stage(w, n) for w, n in zip(widths[:-1], blocks[:-1], strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.middle = stage(widths[-1], blocks[-1])
        self.ups = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.decoder = nn.ModuleList(stage(w, n) for w, n in zip(widths[-2::-1], decoder, strict=True))
        self.end = end
        self.multiple_of = finest * 2 ** (len(widths) - 1)
        stages = [*zip(widths, blocks, strict=True), *zip(widths[-2::-1], decoder, strict=True)]
        scales = [finest * 2**i for i in range(len(widths))]
        self._levels = [
            (width, scale)
            for (width, count), scale in zip(stages, scales + scales[-2::-1], strict=True)
            for _ in range(count)
        ]

    def levels(self) -> list[tuple[int, int]]:
        """(channels, downscale) of the feature leaving each block, in the order the blocks run."""
        return list(self._levels)

    def activated(self, embedding: Tensor) -> Tensor:
        """What the FiLM layers of the blocks see of a conditioning vector (N, E)."""
        return F.relu(embedding)

    def forward(
        self,
        picture: Tensor,
        embedding: Tensor | None = None,
        decoder_embedding: Tensor | None = None,
        adapters: Sequence[nn.Module] | None = None,
        guidance: Any = None,
        entry: Tensor | None = None,
    ) -> Tensor:
        """picture: (N, inputs, H, W), H and W multiples of `multiple_of`. Returns (N, outputs, H, W).

        `embedding` conditions the encoder, `decoder_embedding` the middle and the decoder; both are `activated`.
        `adapters`, one per block, each see the feature that leaves the block and `guidance`. `entry`, (N, widths[0],
        H / finest, W / finest), is added to the features that enter the first block.
        """
        following = iter(adapters or ())

        def run(blocks: nn.Module, x: Tensor, vector: Tensor | None) -> Tensor:
            for block in blocks.children():
                x = block(x, vector)
                if adapters is not None:
                    x = next(following)(x, guidance)
            return x

        x = self.intro(F.pixel_unshuffle(picture, self.finest))
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


class ConvUnet(UnetBody):
    """Image in, image out: pixel-unshuffle by `finest`, the body with blocks of one kind, pixel-shuffle."""

    Block: Callable[..., nn.Module] = ConvBlock  # (channels, hidden channels, size of the embedding or None)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        expansion: float,
        embedding: int | None = None,
        decoder: Sequence[int] = (),
        finest: int = 2,
    ) -> None:
        def block(width: int) -> nn.Module:
            return type(self).Block(width, int(width * expansion), embedding)

        intro, end = nn.Conv2d(finest**2 * inputs, widths[0], 1), conv3x3(widths[0], finest**2 * outputs)
        super().__init__(intro, end, block, widths, blocks, decoder, finest)


class Unet(ConvUnet):
    """A `ConvUnet` of Rep-edge blocks."""

    Block = RepBlock


def replaced(module: Module, makers: Mapping[type[nn.Module], Callable[..., nn.Module]]) -> Module:
    """A copy of `module`, ready to run, in which every part of a type in `makers` is what that makes of it."""
    module = copy.deepcopy(module)
    made: dict[nn.Module, nn.Module] = {}  # a part that stands in two places stays one
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in makers:
                made[child] = made.get(child) or makers[type(child)](child)
                setattr(parent, name, made[child])
    return module.eval().requires_grad_(False)


def merge_branches(module: Module) -> Module:
    """A copy of `module` in which every re-parameterised convolution is one plain convolution (exact)."""
    return replaced(module, {RepConv: RepConv.merged})
