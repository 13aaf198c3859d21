"""DIRformer: the transformer of DiffIR that turns a damaged image and its prior vector into the restored image.

A U-shaped stack of blocks of two halves, x + DMTA(LN(x), Z) and x + DGFN(LN(x), Z) (Xia et al., "DiffIR: Efficient
Diffusion Model for Image Restoration", ICCV 2023, Eqs. 3 to 5): attention between channels and a gated feed-forward,
as in Restormer (Zamir et al., CVPR 2022), each modulated by the prior vector Z.

Tensors are (N, C, H, W), fastest in channels_last; prior vectors (N, K).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import channel_attention, gated_feed_forward, modulated_norm
from ..errors import UsageError

__all__ = [
    "ChannelAttention",
    "Dirformer",
    "DirformerConfig",
    "FeedForward",
    "Modulation",
    "TransformerBlock",
    "UnshuffleDown",
]


@dataclass(frozen=True)
class DirformerConfig:
    """Sizes of the transformer."""

    width: int = 48  # channels at the finest resolution; they double with each further one
    blocks: tuple[int, ...] = (3, 5, 6, 6)  # per resolution, the last entry is the middle; the decoder mirrors them
    heads: tuple[int, ...] = (1, 2, 4, 8)  # attention heads per resolution
    refinement: int = 4  # blocks after the decoder
    expansion: float = 2.0  # hidden channels of the feed-forward / channels
    norm_bias: bool = True  # False: the norm neither subtracts the mean nor adds a bias
    unshuffle: int = 1  # the body runs at 1/unshuffle of the input's size
    narrow: bool = False  # True: a 1x1 brings the finest decoder resolution from 2 width back to width
    upsampler: bool = False  # True: the body's features are upsampled before the last convolution, not its image

    @property
    def multiple_of(self) -> int:
        """The sides of an image must be multiples of this."""
        return self.unshuffle * 2 ** (len(self.blocks) - 1)


class Modulation(nn.Module):
    """norm(x) * scale + shift, both linear in the prior vector.

    In the paper without bias (plain scale, not 1 + scale); with `bias`, they start at 1 and 0, so that the vector does
    not have to encode what all photos have in common.
    """

    def __init__(self, channels: int, ipr: int, norm_bias: bool, bias: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, bias=norm_bias)  # its parameters: the op normalises
        self.linear = nn.Linear(ipr, 2 * channels, bias=bias)
        if bias:
            with torch.no_grad():
                self.linear.bias.copy_(torch.tensor([1.0, 0.0]).repeat_interleave(channels))

    def forward(self, x: Tensor, ipr: Tensor) -> Tensor:
        """x: (N, C, H, W); ipr: (N, K). Returns the shape of x."""
        scale, shift = self.linear(ipr).chunk(2, dim=1)
        return modulated_norm(x, self.norm.weight, self.norm.bias, scale, shift)


def _mix(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, outputs, 1, bias=False),
        nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False),
    )


def _weights(mix: nn.Sequential) -> tuple[Tensor, Tensor]:
    pointwise, depthwise = mix
    assert isinstance(pointwise, nn.Conv2d)
    assert isinstance(depthwise, nn.Conv2d)
    return pointwise.weight, depthwise.weight


class ChannelAttention(nn.Module):
    """DMTA: attention of every channel to every other of its head; its cost is linear in the number of pixels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q, self.k, self.v = (_mix(channels, channels) for _ in range(3))
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns the shape of x."""
        q, k, v = (_weights(mix) for mix in (self.q, self.k, self.v))
        return channel_attention(x, *q, *k, *v, self.temperature, self.out.weight, self.heads)


class FeedForward(nn.Module):
    """DGFN: 1x1, 3x3 depthwise, one half gated by GELU of the other, 1x1."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.value = _mix(channels, hidden), _mix(channels, hidden)
        self.leave = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns the shape of x."""
        return gated_feed_forward(x, *_weights(self.gate), *_weights(self.value), self.leave.weight)


class TransformerBlock(nn.Module):
    """x + DMTA(LN(x), Z), then x + DGFN(LN(x), Z)."""

    def __init__(self, channels: int, heads: int, expansion: float, ipr: int, norm_bias: bool, bias: bool) -> None:
        super().__init__()
        self.attention_norm = Modulation(channels, ipr, norm_bias, bias)
        self.attention = ChannelAttention(channels, heads)
        self.forward_norm = Modulation(channels, ipr, norm_bias, bias)
        self.feed_forward = FeedForward(channels, int(channels * expansion))

    def forward(self, x: Tensor, ipr: Tensor) -> Tensor:
        """x: (N, C, H, W); ipr: (N, K). Returns the shape of x."""
        x = x + self.attention(self.attention_norm(x, ipr))
        return x + self.feed_forward(self.forward_norm(x, ipr))


class UnshuffleDown(nn.Sequential):
    """Half the resolution and twice the channels, by a 3x3 convolution and a pixel-unshuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def _up(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2))


def _tail(channels: int, factor: int, upsampler: bool) -> nn.Module:
    """Features to an image `factor` (a power of two) times as large."""
    if not upsampler:
        last = nn.Conv2d(channels, 3 * factor**2, 3, padding=1, bias=False)
        return nn.Sequential(last, nn.PixelShuffle(factor)) if factor > 1 else last
    steps: list[nn.Module] = []
    for _ in range(factor.bit_length() - 1):
        steps += [nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*steps, nn.Conv2d(channels, 3, 3, padding=1))


class Dirformer(nn.Module):
    """The transformer; the image's first three channels are added to its output (nearest neighbours if scale > 1).

    bias: whether scales and shifts have one, see `Modulation`. Raises UsageError when the lists of the configuration
    differ in length.
    """

    def __init__(self, config: DirformerConfig, inputs: int, scale: int, ipr: int, *, bias: bool = False) -> None:
        super().__init__()
        resolutions = len(config.blocks)
        if len(config.heads) != resolutions:
            raise UsageError(
                f"heads and blocks must have one entry per resolution, got {config.heads} and {config.blocks}"
            )

        def stage(width: int, depth: int, count: int) -> nn.ModuleList:
            heads = config.heads[depth]
            return nn.ModuleList(
                TransformerBlock(width, heads, config.expansion, ipr, config.norm_bias, bias) for _ in range(count)
            )

        widths = [config.width * 2**depth for depth in range(resolutions)]
        last = widths[0] if config.narrow else 2 * widths[0]
        self.scale = scale
        self.unshuffle = nn.PixelUnshuffle(config.unshuffle)
        self.multiple_of = config.multiple_of
        self.intro = nn.Conv2d(inputs * config.unshuffle**2, widths[0], 3, padding=1, bias=False)
        self.encoder = nn.ModuleList(stage(widths[i], i, config.blocks[i]) for i in range(resolutions - 1))
        self.downs = nn.ModuleList(UnshuffleDown(width) for width in widths[:-1])
        self.middle = stage(widths[-1], resolutions - 1, config.blocks[-1])
        self.ups = nn.ModuleList(_up(width) for width in widths[:0:-1])
        outs = [*widths[-2:0:-1], last]  # channels of each decoder depth
        self.merges = nn.ModuleList(
            nn.Conv2d(2 * width, out, 1, bias=False) if out != 2 * width else nn.Identity()
            for width, out in zip(widths[-2::-1], outs, strict=True)
        )
        self.decoder = nn.ModuleList(
            stage(out, depth, config.blocks[depth])
            for out, depth in zip(outs, range(resolutions - 2, -1, -1), strict=True)
        )
        self.refinement = stage(last, 0, config.refinement)
        self.tail = _tail(last, config.unshuffle * scale, config.upsampler)

    def forward(self, image: Tensor, ipr: Tensor) -> Tensor:
        """Restore images (N, inputs, H, W) in [0, 1], sides multiples of `multiple_of`, under prior vectors (N, K).

        Returns (N, 3, scale H, scale W), not clipped.
        """

        def run(blocks: nn.Module, x: Tensor) -> Tensor:
            for block in blocks.children():
                x = block(x, ipr)
            return x

        x = self.intro(self.unshuffle(image))
        # Encoder.
        skips = []
        for blocks, down in zip(self.encoder, self.downs, strict=True):
            x = run(blocks, x)
            skips.append(x)
            x = down(x)
        # Middle and decoder.
        x = run(self.middle, x)
        for up, merge, blocks in zip(self.ups, self.merges, self.decoder, strict=True):
            x = run(blocks, merge(torch.cat([up(x), skips.pop()], dim=1)))
        x = self.tail(run(self.refinement, x))
        # Global residual.
        colours = image[:, :3]
        return x + (colours if self.scale == 1 else F.interpolate(colours, scale_factor=self.scale))
