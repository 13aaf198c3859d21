"""Consistency distillation at the few levels that are used: all states of one path lead to the same end.

Song et al., "Consistency Models" (ICML 2023), Algorithm 2, on the levels of the student alone: between two of them the
teacher walks a few steps of DDIM, and the student must say at the first what its slow average says at the second. At
the last level it learns where the teacher's walk ends.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.sampling.steps import Steps, thinned
from ..core.training.data.photos import Data, Pool
from ..core.training.loop.stage import Arrays
from .paths import move, snr_loss
from .recipe import DistillRecipe
from .stage import AssistedStage
from .system import Problem, System

__all__ = ["RECIPE", "SYSTEMS", "ConsistencyRecipe", "ConsistencyStage", "SlowCopy", "build", "loss"]


@dataclass(frozen=True)
class ConsistencyRecipe(DistillRecipe):
    """How to learn consistency."""

    solver_steps: int = 3  # of the teacher between two levels of the student
    slow: float = 0.98  # decay of the average that gives the targets

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("solver_steps")
        if self.slow > 1:
            raise UsageError(f"recipe field 'slow' must be at most 1, got {self.slow}")


RECIPE = ConsistencyRecipe(steps=3000, batch=16, crop=64, rate=5e-4, warmup=100, ema=0.995, save_every=500)
SYSTEMS = ("dtpm",)


def loss(
    teacher: nn.Module, student: nn.Module, problem: Problem, batch: dict[str, Tensor], *,
    slow: nn.Module, grid: Steps, each: int,
) -> dict[str, Tensor]:  # fmt: skip
    """Squared error of x0, weighted by SNR + 1, against that of `slow` one level on, on the teacher's path.

    grid: the teacher's steps, `each` of them for each of the student's. batch: `at` (N,), which of the student's steps;
    `noise`, which the truth is noised with.
    """
    first = batch["at"] * each
    levels, times = (torch.tensor(values, device=first.device) for values in (grid.levels, (*grid.times, 0.0)))
    start = move(problem.truth, batch["noise"], levels[first])
    with torch.no_grad():
        x = start
        for i in range(each):
            found = problem.denoise(teacher, x, levels[first + i], times[first + i])
            x = move(found.clean, found.eps, levels[first + i + 1])
        after = first + each
        ended = (after == grid.step_count).reshape(-1, *[1] * (x.dim() - 1))
        target = torch.where(ended, x, problem.denoise(slow, x, levels[after], times[after]).clean)
    found = problem.denoise(student, start, levels[first], times[first])
    return {"loss": snr_loss(found.clean, target, levels[first])}


class SlowCopy:
    """The slow average of the student that the targets come from; see `Aside`."""

    def __init__(self, student: nn.Module, decay: float) -> None:
        self.student, self.decay = student, decay
        self.network = copy.deepcopy(student).eval().requires_grad_(False)
        self.networks = nn.ModuleList([self.network])

    @torch.no_grad()
    def step(self, done: int, batch: dict[str, Tensor], shared: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """As in `Aside`: moves the average towards the student."""
        del done, batch, shared
        for ours, theirs in zip(self.network.parameters(), self.student.parameters(), strict=True):
            ours.lerp_(theirs, 1 - self.decay)
        return {}

    def state(self) -> dict[str, Tensor]:
        """As in `Aside`."""
        return dict(self.network.state_dict())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As in `Aside`."""
        self.network.load_state_dict(tensors)


class ConsistencyStage(AssistedStage):
    """Learns to agree with the slow average of itself."""

    def __init__(self, system: System, recipe: ConsistencyRecipe, data: Data) -> None:
        super().__init__("consistency", system, recipe, data, loss)
        self.each = recipe.solver_steps
        self.grid = system.steps(recipe.sampling_steps * recipe.solver_steps)
        self.steps = thinned(self.grid, recipe.sampling_steps)
        self.gates.steps = self.steps
        self.aside = self.slow = SlowCopy(self.model, recipe.slow)

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """What the system draws, and `at`: which step."""
        return {**super().draw(pool, crop, rng), "at": np.array(rng.integers(self.steps.step_count))}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss against the slow average of the moment."""
        problem, slow = self.system.problem(batch), self.slow.network
        return loss(self.system.teacher, self.model, problem, batch, slow=slow, grid=self.grid, each=self.each)


def build(recipe: ConsistencyRecipe, system: System, data: Data, run: Path, device: torch.device) -> ConsistencyStage:
    """The stage."""
    del run, device
    return ConsistencyStage(system, recipe, data)
