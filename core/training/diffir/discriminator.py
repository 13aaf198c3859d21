"""What the adversarial phase of DiffIR learns against: a U-Net that scores how real every pixel looks.

The discriminator of Wang et al., "Real-ESRGAN" (ICCV Workshops 2021), after Schönfeld et al., "A U-Net Based
Discriminator for Generative Adversarial Networks" (CVPR 2020), with the spectral normalisation of Miyato et al. (ICLR
2018); narrower than theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..aside import LearningAside

__all__ = ["Discriminator", "Opponent", "real_loss"]

LEAK = 0.2  # slope of every LeakyReLU
OCTAVES = 3  # it is halved so often: sides of 8 pixels or more


class Discriminator(nn.Module):
    """image (N, 3, H, W) in [0, 1] -> scores (N, 1, H, W), float32; higher is more real.

    Its layers' spectral norms are estimated anew by each forward pass in training mode.
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
    """How far scores are from calling all pixels real: the mean cross-entropy, in nats."""
    return F.softplus(-scores).mean()


class Opponent(LearningAside):
    """The discriminator and its optimiser; see `Aside`.

    made: (batch) -> the images that are to pass as real, (N, 3, H, W). It judges in evaluation mode but for its own
    steps, so that a loss that looks through it changes nothing.
    """

    def __init__(self, made: Callable[[dict[str, Tensor]], Tensor], width: int, rate: float) -> None:
        self.made, self.judge = made, Discriminator(width).eval()
        super().__init__([self.judge], [(self.judge.parameters(), rate)])

    def step(self, done: int, batch: dict[str, Tensor], shared: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """As in `Aside`: one step to tell the truth of the batch from what is made of it."""
        del done
        with torch.no_grad():
            made = self.made(batch)
        self.judge.train()
        loss = real_loss(self.judge(batch["clean"])) + real_loss(-self.judge(made))
        self.descend([loss], shared)
        self.judge.eval()
        return {"discriminator": loss.detach()}
