"""Consistency distillation at the few levels that are used: all states of one path lead to the same end.

Song et al., "Consistency Models" (ICML 2023), Algorithm 2, only on the levels of the student: between two of them the
teacher walks a few steps of DDIM, and the student must predict at the first what its slow average predicts at the
second. At the last level it learns where the teacher's walk ends.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.sampling.steps import thinned
from ..core.training.data.photos import Pool
from ..core.training.loop.stage import Arrays
from .distillation import DistillRun, DistillStage
from .system import DistillRecipe, snr_loss, state_at

__all__ = ["ConsistencyRecipe", "ConsistencyStage", "SlowCopy"]


@dataclass(frozen=True)
class ConsistencyRecipe(DistillRecipe):
    """How to learn consistency."""

    solver_steps: int = 3  # of the teacher between two levels of the student
    slow: float = 0.98  # decay of the average that the targets come from
    counts = (*DistillRecipe.counts, "solver_steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slow > 1:
            raise UsageError(f"recipe field 'slow' must be at most 1, got {self.slow}")


class SlowCopy:
    """The slow average of the student that the targets come from; see `Auxiliary`."""

    def __init__(self, student: nn.Module, decay: float) -> None:
        self.student, self.decay = student, decay
        self.network = copy.deepcopy(student).eval().requires_grad_(False)
        self.networks = nn.ModuleList([self.network])

    @torch.no_grad()
    def step(self, done: int, batch: dict[str, Tensor], shared: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """As in `Auxiliary`: moves the average towards the student."""
        del done, batch, shared
        for ours, theirs in zip(self.network.parameters(), self.student.parameters(), strict=True):
            ours.lerp_(theirs, 1 - self.decay)
        return {}

    def state(self) -> dict[str, Tensor]:
        """As in `Auxiliary`."""
        return dict(self.network.state_dict())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As in `Auxiliary`."""
        self.network.load_state_dict(tensors)


class ConsistencyStage(DistillStage):
    """Learns to agree with the slow average of itself."""

    method = "consistency"
    systems = ("dtpm",)
    default = ConsistencyRecipe(steps=3000, batch=16, rate=5e-4, warmup=100, save_every=500)

    def __init__(self, run: DistillRun[ConsistencyRecipe]) -> None:
        count, self.each = run.recipe.sampling_steps, run.recipe.solver_steps
        self.grid = run.system.steps(count * self.each)
        super().__init__(run, thinned(self.grid, count))
        self.auxiliary = self.slow = SlowCopy(self.model, run.recipe.slow)

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """The system's sample, with `at`: which of the student's steps."""
        return {**super().draw(pool, crop, rng), "at": np.array(rng.integers(self.steps.step_count))}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of x0, weighted by SNR + 1, against the slow x0 one level further on the teacher's path."""
        problem = self.system.problem(batch)
        first = batch["at"] * self.each
        after = first + self.each
        grid = self.grid.levels, (*self.grid.times, 0.0)
        levels, times = (torch.tensor(values, device=first.device) for values in grid)
        start = state_at(problem.truth, batch["noise"], levels[first])
        with torch.no_grad():
            x = problem.walk(self.system.teacher, start, levels, times, [first + i for i in range(self.each)])
            ended = (after == self.grid.step_count).reshape(-1, *[1] * (x.dim() - 1))
            slow = problem.denoise(self.slow.network, x, levels[after], times[after]).clean
            target = torch.where(ended, x, slow)
        found = problem.denoise(self.model, start, levels[first], times[first])
        return {"loss": snr_loss(found.clean, target, levels[first])}


METHOD = ConsistencyStage
