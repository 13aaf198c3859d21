"""The NAFNet body of the `base` and `paper` sizes: gates instead of activations, conditioned by FiLM.

Chen et al., "Simple Baselines for Image Restoration" (NAFNet, ECCV 2022), with a time-conditioned normalisation as in
Luo et al., "Refusion" (CVPRW 2023). Tensors are (N, C, H, W); conditioning vectors (N, E).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import UnetBody

__all__ = ["ChannelNorm", "NafBlock", "NafUnet", "gate"]


def gate(x: Tensor) -> Tensor:
    """The simple gate: the first half of the channels times the second, (N, 2C, ...) -> (N, C, ...)."""
    first, second = x.chunk(2, dim=1)
    return first * second


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, with a learnt scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        normal = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, eps=1e-6)
        return normal.permute(0, 3, 1, 2)


class NafBlock(nn.Module):
    """x + beta * spatial(film(norm(x))), then the same with gamma and a pointwise half.

    beta and gamma start at zero: a fresh block is the identity. Without `embedding` there is no FiLM; with it, one
    linear layer of the gated embedding (`NafUnet.activated`) gives scale and shift of both halves. The channel
    attention averages over the whole input, so a tile of a photo sees a little else than the photo does.
    """

    def __init__(self, channels: int, hidden: int, embedding: int | None = None) -> None:
        super().__init__()
        self.film = None if embedding is None else nn.Linear(embedding // 2, 4 * channels)
        self.spatial_norm = ChannelNorm(channels)
        self.spatial_in = nn.Conv2d(channels, 2 * hidden, 1)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.attention = nn.Conv2d(hidden, hidden, 1)
        self.spatial_out = nn.Conv2d(hidden, channels, 1)
        self.point_norm = ChannelNorm(channels)
        self.point_in = nn.Conv2d(channels, 2 * hidden, 1)
        self.point_out = nn.Conv2d(hidden, channels, 1)
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        films: Sequence[Tensor | None] = (None, None)
        if self.film is not None:
            films = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        # Spatial half.
        h = gate(self.depthwise(self.spatial_in(_filmed(self.spatial_norm(x), films[0]))))
        h = h * self.attention(h.mean(dim=(2, 3), keepdim=True))
        x = x + self.beta * self.spatial_out(h)
        # Pointwise half.
        h = gate(self.point_in(_filmed(self.point_norm(x), films[1])))
        return x + self.gamma * self.point_out(h)


def _filmed(x: Tensor, film: Tensor | None) -> Tensor:
    if film is None:
        return x
    scale, shift = film.chunk(2, dim=1)
    return x * (1 + scale) + shift


class NafUnet(UnetBody):
    """Picture in, picture out at full resolution: 3x3 convolution, the body with `NafBlock`s, 3x3 convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        expansion: float,
        embedding: int | None = None,
        decoder: Sequence[int] = (),
    ) -> None:
        def block(width: int) -> NafBlock:
            return NafBlock(width, int(width * expansion), embedding)

        intro, end = nn.Conv2d(inputs, widths[0], 3, padding=1), nn.Conv2d(widths[0], outputs, 3, padding=1)
        super().__init__(intro, end, block, widths, blocks, decoder, finest=1)

    def activated(self, embedding: Tensor) -> Tensor:
        """The gated conditioning vector, (N, E) -> (N, E / 2)."""
        return gate(embedding)
