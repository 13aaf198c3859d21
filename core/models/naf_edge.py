"""The "NAF-edge" body: gates instead of activations, with nothing that a phone or a CPU is slow at.

NAFNet's spatial half (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022) without channel attention, from
half resolution on. The normalisation is over the batch and comes before an unpadded 1x1 convolution, so that at
deployment it is a part of that convolution's weights (`rewrite.py`); the gate becomes two parallel branches. Tensors
are (N, C, H, W); conditioning vectors (N, E).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.naf_block import gate
from .blocks import Unet

__all__ = ["BatchNorm", "NafEdgeBlock", "NafEdgeUnet"]

EPS = 1e-5
MOMENTUM = 0.02  # weight of a new batch in the running statistics: those of about the last 50 batches


class BatchNorm(nn.Module):
    """Batch normalisation over (N, H, W) of each channel (Ioffe and Szegedy, 2015), with learnt weight and bias.

    It normalises by the batch, and follows its mean and variance, only while its own weight is being trained: a frozen
    part is the same function in training as it is when deployed. The batch is what one call sees: with several
    processes, or an accumulated batch, each part is normalised by itself.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns the same shape."""
        learning = self.training and self.weight.requires_grad
        return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, learning, MOMENTUM, EPS)

    def affine(self) -> tuple[Tensor, Tensor]:
        """(scale, shift), each (C,): deployed, the normalisation is x * scale + shift."""
        scale = self.weight * torch.rsqrt(self.variance + EPS)
        return scale, self.bias - self.mean * scale


class NafEdgeBlock(nn.Module):
    """x + leave(film(gate(depthwise(enter(norm(x)))))); without `embedding` there is no FiLM.

    The last convolution starts at zero: a fresh block is the identity. Nothing looks further than a pixel, so tiles of
    a photo are restored as the whole is.
    """

    def __init__(self, channels: int, hidden: int, embedding: int | None = None) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)
        self.enter = nn.Conv2d(channels, 2 * hidden, 1)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.film = None if embedding is None else nn.Linear(embedding, 2 * hidden)
        self.leave = nn.Conv2d(hidden, channels, 1)
        for layer in (self.leave, self.film):
            for parameter in () if layer is None else layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x: (N, C, H, W); embedding: (N, E), activated. Returns the shape of x."""
        h = gate(self.depthwise(self.enter(self.norm(x))))
        if self.film is not None:
            scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.leave(h)


class NafEdgeUnet(Unet):
    """As `Unet`, of `NafEdgeBlock`s."""

    Block = NafEdgeBlock
