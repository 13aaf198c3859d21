"""Progressive distillation: a student learns two steps of its teacher as one, then becomes the next teacher.

Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models" (ICLR 2022), Algorithm 2. The chain
halves down to the student's steps: for 4 steps of a teacher of 50, from 64 over 32, 16 and 8. The phases share the
steps of the run, and no trajectory is needed: the states are noised photos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..core.sampling.steps import thinned
from ..core.training.data.photos import Pool
from ..core.training.loop.stage import Arrays
from .distillation import DistillRun, DistillStage
from .system import DistillRecipe, implied_clean, snr_loss, state_at

__all__ = ["PhaseTeacher", "ProgressiveStage"]


class PhaseTeacher:
    """The teacher of the current phase, the last phase's student, and when the next phase begins; see `Auxiliary`."""

    def __init__(self, student: nn.Module, teacher: nn.Module, phases: int, steps: int) -> None:
        self.student, self.teacher = student, teacher
        self.networks = nn.ModuleList([teacher])
        self.ends = [round(steps * (i + 1) / phases) for i in range(phases)]
        self.phase = 0

    @torch.no_grad()
    def step(self, done: int, batch: dict[str, Tensor], shared: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """As in `Auxiliary`: the figure is the number of the phase."""
        del batch, shared
        if done + 1 >= self.ends[self.phase] and self.phase + 1 < len(self.ends):
            for ours, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                ours.copy_(theirs)
            self.phase += 1
        return {"phase": next(self.teacher.parameters()).new_tensor(float(self.phase))}

    def state(self) -> dict[str, Tensor]:
        """As in `Auxiliary`."""
        return {"phase": torch.tensor(self.phase), **{f"teacher.{n}": t for n, t in self.teacher.state_dict().items()}}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As in `Auxiliary`."""
        self.phase = int(tensors["phase"])
        self.teacher.load_state_dict({n: tensors[f"teacher.{n}"] for n in self.teacher.state_dict()})


class ProgressiveStage(DistillStage):
    """Learns from the teacher of the current phase."""

    method = "progressive"
    systems = ("dtpm",)
    default = DistillRecipe(steps=3200, batch=16, rate=5e-4, warmup=100, save_every=400)

    def __init__(self, run: DistillRun[DistillRecipe]) -> None:
        recipe, system = run.recipe, run.system
        usual = system.steps(recipe.teacher_steps).step_count
        phases = max(1, math.ceil(math.log2(usual / recipe.sampling_steps)))
        self.grids = [system.steps(recipe.sampling_steps * 2 ** (phases - i)) for i in range(phases)]
        super().__init__(run, thinned(self.grids[-1], recipe.sampling_steps))
        teacher = system.student(self.grids[0].step_count).eval().requires_grad_(False)
        self.auxiliary = self.phases = PhaseTeacher(self.model, teacher, phases, recipe.steps)

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """The system's sample, with `place` in [0, 1): which of the student's steps."""
        return {**super().draw(pool, crop, rng), "place": np.array(rng.random(), np.float32)}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of x0, weighted by SNR + 1, against the x0 that leads where two steps of the teacher lead."""
        problem, grid = self.system.problem(batch), self.grids[self.phases.phase]
        count = grid.step_count // 2
        first = 2 * (batch["place"] * count).long().clamp(max=count - 1)
        levels, times = (torch.tensor(values, device=first.device) for values in grid)
        start = state_at(problem.truth, batch["noise"], levels[first])
        reached = problem.walk(self.phases.teacher, start, levels, times, (first, first + 1))
        target = implied_clean(start, reached, levels[first], levels[first + 2])
        found = problem.denoise(self.model, start, levels[first], times[first])
        return {"loss": snr_loss(found.clean, target, levels[first])}


METHOD = ProgressiveStage
