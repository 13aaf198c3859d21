"""The last halving, to one step: match the distribution of the teacher's samples, not each sample.

A regression to the teacher's samples blurs in one step. Instead the student follows the difference of two scores, that
of the frozen teacher and that of a copy which keeps learning the student's output (Yin et al., "Distribution Matching
Distillation", CVPR 2024, and its second version, NeurIPS 2024; RSD, Selikhanovych et al. 2025, for restoration),
together with a patch critic on the high-pass band and L1 to the truth. It works for a few steps as well: the chain runs
with gradients.

The critics learn at the same time as the student and faster (the two time scales of Yin et al., "Improved Distribution
Matching Distillation", NeurIPS 2024): the student's gradient is only as good as they are up to date.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator, Philox
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.training.data.photos import Pool, planar
from ..core.training.loop.stage import Arrays, AuxiliaryNetworks, fixed
from .distillation import DistillRun, DistillStage, weighted_sum
from .system import DistillRecipe, Problem, snr_loss, state_at

__all__ = ["Critics", "OneStepRecipe", "OneStepStage", "PatchCritic", "high_pass"]

LEVEL_RANGE = (0.02, 0.98)  # of the teacher's levels at which scores are compared, as shares of its steps
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)  # over 16: binomial, a standard deviation of one pixel
PATCH_SCALES = 2  # sizes of the image that patches are judged at


@dataclass(frozen=True)
class OneStepRecipe(DistillRecipe):
    """How to match the teacher's distribution.

    loss = score * distribution matching + adversarial * patch critic + l1 * L1 of the state to the truth.
    """

    score: float = 1.0
    adversarial: float = 0.05
    l1: float = 0.25
    updates: int = 2  # of the critics per step of the student
    fake_rate: float = 5e-4  # learning rate of the fake-score model
    patch_rate: float = 5e-4  # learning rate of the patch critic
    patch_width: int = 24  # channels of the patch critic
    counts = (*DistillRecipe.counts, "updates", "patch_width")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score + self.l1 <= 0:
            raise UsageError("score or l1 must be above 0, or nothing would tie the student to the image")


def _score_loss(teacher: nn.Module, fake: nn.Module, problem: Problem, end: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """A squared error whose gradient is that of DMD (Eq. 7 and 8): fake x0 minus real x0, by the error of the real."""
    alpha_bar, t = batch["alpha_bar"], batch["t"]
    with torch.no_grad():
        x = state_at(end, batch["score_noise"], alpha_bar)
        real, false = (problem.denoise(model, x, alpha_bar, t).clean for model in (teacher, fake))
        size = (end - real).abs().flatten(1).mean(dim=1).reshape(-1, *[1] * (end.dim() - 1))
        aim = end - (false - real) / size.clamp_min(1e-3)
    return 0.5 * F.mse_loss(end, aim)


class OneStepStage(DistillStage):
    """Learns against its critics."""

    method = "one_step"
    systems = ("dtpm", "gen2res")
    default = OneStepRecipe(steps=1500, batch=8, rate=2e-4, warmup=50, save_every=250, sampling_steps=1)

    def __init__(self, run: DistillRun[OneStepRecipe]) -> None:
        super().__init__(run)
        if run.system.own:
            raise UsageError(
                "the teacher is itself distilled and only supports its own timesteps; give the model that it was made "
                "from, and the student with --from"
            )
        self.levels, self.updates = run.system.spread(0), run.recipe.updates
        self.auxiliary = self.critics = Critics(self, run.recipe, _band(run.data.train.at(0), run.recipe.crop))

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """The system's sample, with levels and noise for the student's score and for each update of the fake model."""
        drawn = super().draw(pool, crop, rng)
        shape = drawn["noise"].shape
        low, high = (round(share * self.levels.step_count) for share in LEVEL_RANGE)
        places = [int(rng.integers(low, max(high, low + 1))) for _ in range(self.updates + 1)]
        alpha_bars, times = (np.array([values[i] for i in places], np.float32) for values in self.levels)
        return {
            **drawn,
            "alpha_bar": alpha_bars[0, ...],
            "t": times[0, ...],
            "score_noise": rng.standard_normal(shape, dtype=np.float32),
            "fake_alpha_bar": alpha_bars[1:],
            "fake_t": times[1:],
            "fake_noise": rng.standard_normal((self.updates, *shape), dtype=np.float32),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of `OneStepRecipe`; the scores are compared at the batch's `alpha_bar`, `t` and `score_noise`."""
        problem, patch = self.system.problem(batch), self.critics.patch
        end = problem.sample(self.model, self.steps)
        image = problem.compose(self.model, end)
        with fixed(patch):
            adversarial = torch.stack([-scores.mean() for scores in patch(image)]).mean()
        figures = {
            "score": _score_loss(self.system.teacher, self.critics.fake, problem, end, batch),
            "adversarial": adversarial,
            "l1": F.l1_loss(end, problem.truth),
        }
        return weighted_sum(figures, self.recipe)


def _band(pool: Pool, crop: int) -> float:
    """Standard deviation of the high-pass band of 64 random crops."""
    rng = Generator(Philox(key=[2**34, 0]))
    crops = np.stack([planar(pool.crop(crop, rng).clean) for _ in range(64)])
    return float(high_pass(torch.from_numpy(crops)).std())


def high_pass(image: Tensor) -> Tensor:
    """The image minus its blur by one pixel, (N, 3, H, W): texture without the colours and shapes it lies on."""
    line = image.new_tensor(BINOMIAL) / sum(BINOMIAL)
    kernel = (line[:, None] * line).expand(3, 1, -1, -1)
    return image - F.conv2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)


class PatchCritic(nn.Module):
    """Scores overlapping patches of 13 pixels, on the high-pass band and on that of the halved image.

    A small form of Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (CVPR 2017):
    texture is local. band: standard deviation of the band, by which the input is divided.
    """

    def __init__(self, width: int, band: float) -> None:
        super().__init__()
        self.band = band
        sizes = [(3, width, 3, 1), (width, width, 4, 2), (width, 2 * width, 3, 1)]
        self.nets = nn.ModuleList()
        for _ in range(PATCH_SCALES):
            layers = [m for a, b, k, s in sizes for m in (nn.Conv2d(a, b, k, s, padding=1), nn.LeakyReLU(0.2))]
            self.nets.append(nn.Sequential(*layers, nn.Conv2d(2 * width, 1, 3, padding=1)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: (N, 3, H, W) in [0, 1]. Returns the scores at each scale, (N, 1, H', W'); higher is more real."""
        scores = []
        for net in self.nets:
            scores.append(net(high_pass(image) / self.band).float())
            image = F.avg_pool2d(image, 2)
        return scores


class Critics(AuxiliaryNetworks):
    """The fake-score model and the patch critic, each with an optimiser of its own; see `Auxiliary`.

    The first models the student's output, the second judges patches. band: see `PatchCritic`.
    """

    def __init__(self, stage: OneStepStage, recipe: OneStepRecipe, band: float) -> None:
        self.stage, system = stage, stage.system
        self.fake = system.student(1).requires_grad_(False)
        for part in system.trained:
            self.fake.get_submodule(part).requires_grad_(True)
        self.patch = PatchCritic(recipe.patch_width, band)
        learnt = [p for p in self.fake.parameters() if p.requires_grad], self.patch.parameters()
        super().__init__([self.fake, self.patch], zip(learnt, (recipe.fake_rate, recipe.patch_rate), strict=True))

    def step(self, done: int, batch: dict[str, Tensor], shared: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """As in `Auxiliary`: `updates` steps of both on the student's current output.

        batch: `fake_alpha_bar`, `fake_t` (N, updates), `fake_noise` (N, updates, ...), where fake scores are learnt.
        """
        del done
        student, problem = self.stage.model, self.stage.system.problem(batch)
        with torch.no_grad():
            made = problem.sample(student, self.stage.steps)
            image = problem.compose(student, made)
        figures: dict[str, Tensor] = {}
        for i in range(self.stage.updates):
            alpha_bar, t, noise = (batch[name][:, i] for name in ("fake_alpha_bar", "fake_t", "fake_noise"))
            found = problem.denoise(self.fake, state_at(made, noise, alpha_bar), alpha_bar, t)
            score = snr_loss(found.clean, made, alpha_bar)
            pairs = zip(self.patch(problem.clean), self.patch(image), strict=True)
            judged = torch.stack([(F.relu(1 - real).mean() + F.relu(1 + false).mean()) / 2 for real, false in pairs])
            losses = {"fake": score, "patch": judged.mean()}
            figures = {name: loss.detach() for name, loss in losses.items()}
            self.descend(losses.values(), shared)
        return figures


METHOD = OneStepStage
