"""What a one-step student learns against: a model of what it makes, and a judge of single patches.

Both learn beside the student and faster than it (the two time scales of Yin et al., "Improved Distribution Matching
Distillation", NeurIPS 2024): the gradient that the student gets is only as good as they follow it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.training.loop.stage import AuxiliaryNetworks
from .paths import move, snr_loss
from .system import Problem, System

__all__ = ["Critics", "PatchCritic", "high_pass"]

BLUR = (1.0, 4.0, 6.0, 4.0, 1.0)  # over 16: binomial, a standard deviation of one pixel
SCALES = 2  # sizes of the picture that patches are judged at


def high_pass(picture: Tensor) -> Tensor:
    """What a blur of one pixel takes away, (N, 3, H, W): texture, without the colours and shapes it lies on."""
    line = picture.new_tensor(BLUR) / sum(BLUR)
    kernel = (line[:, None] * line).expand(3, 1, -1, -1)
    return picture - F.conv2d(F.pad(picture, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)


class PatchCritic(nn.Module):
    """Scores of overlapping patches of 13 pixels, on the high-pass band and on that of the halved picture.

    Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (CVPR 2017), small: texture is
    local. band: standard deviation of the band, which the input is divided by.
    """

    def __init__(self, width: int, band: float) -> None:
        super().__init__()
        self.band = band
        self.nets = nn.ModuleList(_patches(width) for _ in range(SCALES))

    def forward(self, picture: Tensor) -> list[Tensor]:
        """picture: (N, 3, H, W) in [0, 1]. Returns the scores at each scale, (N, 1, H', W'); higher is more real."""
        scores = []
        for net in self.nets:
            scores.append(net(high_pass(picture) / self.band).float())
            picture = F.avg_pool2d(picture, 2)
        return scores


def _patches(width: int) -> nn.Sequential:
    sizes = [(3, width, 3, 1), (width, width, 4, 2), (width, 2 * width, 3, 1)]
    layers = [m for a, b, k, s in sizes for m in (nn.Conv2d(a, b, k, s, padding=1), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers, nn.Conv2d(2 * width, 1, 3, padding=1))


class Critics(AuxiliaryNetworks):
    """The fake-score model and the patch critic, each with an optimiser of its own; see `Auxiliary`.

    sample: (problem) -> the end of the student's chain. updates: of both, per step of the student.
    """

    def __init__(
        self,
        system: System,
        sample: Callable[[Problem], Tensor],
        model: Callable[[], nn.Module],
        *,
        width: int,
        band: float,
        rates: tuple[float, float],
        updates: int,
    ) -> None:
        self.system, self.sample, self.student, self.updates = system, sample, model, updates
        self.fake = system.student(1).requires_grad_(False)
        for part in system.trained:
            self.fake.get_submodule(part).requires_grad_(True)
        self.patch = PatchCritic(width, band)
        learnt = [p for p in self.fake.parameters() if p.requires_grad], self.patch.parameters()
        super().__init__([self.fake, self.patch], zip(learnt, rates, strict=True))

    def step(self, done: int, batch: dict[str, Tensor], shared: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """As in `Auxiliary`: `updates` steps of both on what the student makes now.

        batch: `fake_bar`, `fake_t` (N, updates) and `fake_noise` (N, updates, ...), where the fake scores are learnt.
        """
        del done
        problem = self.system.problem(batch)
        with torch.no_grad():
            made = self.sample(problem)
            picture = problem.compose(self.student(), made)
        figures: dict[str, Tensor] = {}
        for i in range(self.updates):
            bar, t, noise = (batch[name][:, i] for name in ("fake_bar", "fake_t", "fake_noise"))
            score = snr_loss(problem.denoise(self.fake, move(made, noise, bar), bar, t).clean, made, bar)
            real, false = self.patch(problem.clean), self.patch(picture)
            judged = torch.stack(
                [(F.relu(1 - r).mean() + F.relu(1 + f).mean()) / 2 for r, f in zip(real, false, strict=True)]
            ).mean()
            figures = {"fake": score.detach(), "patch": judged.detach()}
            self.descend((score, judged), shared)
        return figures
