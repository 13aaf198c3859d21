"""The semantic code: a frozen encoder that says in one vector what a photo shows.

DTPM (CVPR 2024) conditions its prior on the code of a frozen pretrained network. Ours is trained on our own photos
without labels (`core.training.semantic`), so nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SemanticConfig", "SemanticEncoder"]


@dataclass(frozen=True)
class SemanticConfig:
    """Sizes of the encoder."""

    size: int = 96  # side of the square thumbnail it looks at, pixels
    code: int = 64  # length of the code
    widths: tuple[int, ...] = (32, 64, 96, 128)  # channels after each stride-2 convolution


class SemanticEncoder(nn.Module):
    """thumbnail (N, 3, size, size) in [0, 1] -> code (N, code), mean 0 and variance 1 over the training photos."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        widths = (3, *config.widths)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.head = nn.Linear(widths[-1], config.code)
        self.register_buffer("mean", torch.zeros(config.code))
        self.register_buffer("scale", torch.ones(config.code))

    def forward(self, thumbnail: Tensor) -> Tensor:
        x = thumbnail * 2 - 1
        for conv in self.convs:
            x = F.relu(conv(x))
        return (self.head(x.mean(dim=(2, 3))) - self.mean) * self.scale

    @torch.no_grad()
    def standardize(self, thumbnails: Tensor) -> None:
        """Set mean and scale so that the codes of these thumbnails, (N, 3, size, size), have mean 0, variance 1."""
        self.mean.zero_()
        self.scale.fill_(1)
        codes = self(thumbnails)
        self.mean.copy_(codes.mean(0))
        self.scale.copy_(1 / codes.std(0).clamp_min(1e-6))
