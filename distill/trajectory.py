"""Trajectory distillation: the student walks its few steps, each learns to arrive where the teacher's many do.

Zhou et al., "Simple and Fast Distillation of Diffusion Models" (NeurIPS 2024): the teacher's trajectories come first
and once, only the levels that are used are learnt, and the student starts each step from where its own last one
arrived, so that it learns to correct itself.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.sampling.steps import Steps
from ..core.training.data.photos import TrainingData
from .paths import implied, move, snr_loss
from .stage import DistillStage
from .system import Problem, System
from .trajectories import STATES, TrajectoryRecipe, trajectories

__all__ = ["RECIPE", "SYSTEMS", "build", "loss"]

RECIPE = TrajectoryRecipe(steps=3000, batch=8, crop=64, rate=1e-3, warmup=100, ema=0.995, save_every=500)
SYSTEMS = ("dtpm", "gen2res")


def loss(
    teacher: nn.Module, student: nn.Module, problem: Problem, batch: dict[str, Tensor], *, steps: Steps
) -> dict[str, Tensor]:
    """Squared error of x0 at every step, weighted by SNR + 1: of the x0 that leads to the teacher's next state.

    batch: `states` (N, steps, ...), the teacher's at the end of each step. The states between are not
    back-propagated through.
    """
    del teacher
    x = problem.start
    errors = []
    for i, time in enumerate(steps.times):
        bar, following = (x.new_full((len(x),), level) for level in steps.levels[i : i + 2])
        found = problem.denoise(student, x, bar, x.new_full((len(x),), time))
        target = implied(x, batch[STATES][:, i], bar, following)
        errors.append(snr_loss(found.clean, target, bar))
        x = move(found.clean, found.eps, following).detach()
    return {"loss": torch.stack(errors).mean(), "end": errors[-1]}


def build(
    recipe: TrajectoryRecipe, system: System, data: TrainingData, run: Path, device: torch.device
) -> DistillStage:
    """The stage; first the trajectories, on `device`, kept in the folder `run`."""
    steps = system.student_steps(recipe.sampling_steps, recipe.teacher_steps)
    paths = trajectories(system, data.train.at(0), steps, recipe, run, device)
    return DistillStage("trajectory", system, recipe, data, partial(loss, steps=steps), paths)
