"""The NAFNet body of the `base` and `paper` sizes: gates instead of activations, conditioned by FiLM.

Chen et al., "Simple Baselines for Image Restoration" (NAFNet, ECCV 2022), with a time-conditioned normalisation as in
Luo et al., "Refusion" (CVPRW 2023). Tensors are (N, C, H, W); conditioning vectors (N, E).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...kernels.naf_block import Parameters, gate, naf_block
from .blocks import UnetBody, weights

__all__ = ["NafBlock", "NafUnet"]


class NafBlock(nn.Module):
    """x + beta * spatial(film(norm(x))), then the same with gamma and a pointwise half.

    beta and gamma start at zero: a fresh block is the identity. Without `embedding` there is no FiLM; with it, one
    linear layer of the gated embedding (`NafUnet.activated`) gives scale and shift of both halves. The channel
    attention averages over the whole input, so a tile of a photo sees a little else than the photo does.
    """

    def __init__(self, channels: int, hidden: int, embedding: int | None = None) -> None:
        super().__init__()
        self.film = None if embedding is None else nn.Linear(embedding // 2, 4 * channels)
        self.spatial_norm = nn.LayerNorm(channels)  # its parameters, as of all layers here: the op computes
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
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
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
