"""The last halving, to one step: match what the teacher makes as a distribution, not sample by sample.

A regression to the teacher's samples blurs in one step. Instead the student follows the difference of two scores, that
of the frozen teacher and that of a copy which keeps learning what the student makes (Yin et al., "Distribution Matching
Distillation", CVPR 2024, and its second version, NeurIPS 2024; RSD, Selikhanovych et al. 2025, for restoration), beside
a patch critic on the high-pass band and L1 to the truth. Works for few steps as well: the chain is run with gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.sampling.steps import Steps
from ..core.training.data.photos import Data, Pool, planar
from ..core.training.loop.stage import Arrays, fixed
from .critics import Critics, PatchCritic, high_pass
from .paths import move
from .recipe import DistillRecipe
from .stage import AssistedStage
from .system import Problem, System

__all__ = ["RECIPE", "SYSTEMS", "OneStepRecipe", "OneStepStage", "build", "loss"]


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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("updates", "patch_width")
        if self.score + self.l1 <= 0:
            raise UsageError("score or l1 must be above 0, or nothing would hold the picture")


RECIPE = OneStepRecipe(steps=1500, batch=8, crop=64, rate=2e-4, warmup=50, ema=0.995, save_every=250, sampling_steps=1)
SYSTEMS = ("dtpm", "gen2res")
RANGE = (0.02, 0.98)  # of the teacher's levels at which scores are compared, as shares of its steps


def loss(
    teacher: nn.Module,
    student: nn.Module,
    problem: Problem,
    batch: dict[str, Tensor],
    *,
    steps: Steps,
    fake: nn.Module,
    patch: PatchCritic,
    recipe: OneStepRecipe,
) -> dict[str, Tensor]:
    """The terms of `OneStepRecipe`. batch: `bar`, `t` (N,) and `score_noise`, where the scores are compared."""
    end = problem.sample(student, problem.start, steps)
    picture = problem.compose(student, end)
    with fixed(patch):
        adversarial = torch.stack([-scores.mean() for scores in patch(picture)]).mean()
    figures = {
        "score": _score_loss(teacher, fake, problem, end, batch),
        "adversarial": adversarial,
        "l1": F.l1_loss(end, problem.truth),
    }
    terms = [getattr(recipe, name) * value for name, value in figures.items()]
    return {"loss": torch.stack(terms).sum(), **figures}


def _score_loss(teacher: nn.Module, fake: nn.Module, problem: Problem, end: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """A squared error whose gradient is that of DMD (Eq. 7 and 8): fake x0 minus real x0, by the error of the real."""
    bar, t = batch["bar"], batch["t"]
    with torch.no_grad():
        x = move(end, batch["score_noise"], bar)
        real, false = (problem.denoise(model, x, bar, t).clean for model in (teacher, fake))
        size = (end - real).abs().flatten(1).mean(dim=1).reshape(-1, *[1] * (end.dim() - 1))
        aim = end - (false - real) / size.clamp_min(1e-3)
    return 0.5 * F.mse_loss(end, aim)


class OneStepStage(AssistedStage):
    """Learns against its critics."""

    def __init__(self, system: System, recipe: OneStepRecipe, data: Data) -> None:
        super().__init__("one_step", system, recipe, data, loss)
        self.levels = system.levels()
        self.updates, self.terms = recipe.updates, recipe
        self.aside = self.critics = Critics(
            system,
            lambda problem: problem.sample(self.model, problem.start, self.steps),
            lambda: self.model,
            width=recipe.patch_width,
            band=_band(data.train.at(0), recipe.crop),
            rates=(recipe.fake_rate, recipe.patch_rate),
            updates=recipe.updates,
        )

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """What the system draws, and levels and noise for the student's score and for each update of the fake one's."""
        drawn = super().draw(pool, crop, rng)
        count, shape = self.updates, drawn["noise"].shape
        first, *others = (self._level(rng) for _ in range(count + 1))
        return {
            **drawn,
            "bar": np.array(first[0], np.float32),
            "t": np.array(first[1], np.float32),
            "score_noise": rng.standard_normal(shape, dtype=np.float32),
            "fake_bar": np.array([bar for bar, _ in others], np.float32),
            "fake_t": np.array([t for _, t in others], np.float32),
            "fake_noise": rng.standard_normal((count, *shape), dtype=np.float32),
        }

    def _level(self, rng: Generator) -> tuple[float, float]:
        """A level and the time that the network is told there."""
        low, high = (round(share * self.levels.step_count) for share in RANGE)
        place = int(rng.integers(low, max(high, low + 1)))
        return self.levels.levels[place], self.levels.times[place]

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss under the critics of the moment."""
        problem, critics = self.system.problem(batch), self.critics
        return loss(
            self.system.teacher,
            self.model,
            problem,
            batch,
            steps=self.steps,
            fake=critics.fake,
            patch=critics.patch,
            recipe=self.terms,
        )


def _band(pool: Pool, crop: int) -> float:
    """Standard deviation of the high-pass band of 64 random crops."""
    rng = np.random.Generator(np.random.Philox(key=[2**34, 0]))
    crops = np.stack([planar(pool.crop(crop, rng).clean) for _ in range(64)])
    return float(high_pass(torch.from_numpy(crops)).std())


def build(recipe: OneStepRecipe, system: System, data: Data, run: Path, device: torch.device) -> OneStepStage:
    """The stage."""
    del run, device
    return OneStepStage(system, recipe, data)
