"""Unrolled distillation: the student's whole chain is run with gradients, and judged on the restored picture.

The terms of DTPM's finish, and beside them what the teacher makes of the same noise: of the end of its chain and of
its picture. A DiffIR's chain is a few vectors, so this is all its students need.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.sampling.steps import Steps
from ..core.training.data.photos import Data
from ..core.training.dtpm.losses import detail_loss, psnr_loss
from .stage import DistillStage
from .system import Problem, System
from .trajectories import STATES, TrajectoryRecipe, trajectories

__all__ = ["RECIPE", "SYSTEMS", "UnrolledRecipe", "build", "loss"]


@dataclass(frozen=True)
class UnrolledRecipe(TrajectoryRecipe):
    """How to learn through the chain.

    loss = end * MSE(end of the chain, the teacher's) + psnr * (minus PSNR in dB) + l1 * L1 + detail * `detail_loss`, of
    the restored picture. The detail is compared with the teacher's picture: how much texture is the teacher's to say.
    """

    end: float = 1.0
    psnr: float = 0.0
    l1: float = 1.0
    detail: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end + self.psnr + self.l1 <= 0:
            raise UsageError("end, psnr or l1 must be above 0, or nothing would hold the picture")


RECIPE = UnrolledRecipe(steps=2000, batch=8, crop=64, rate=5e-4, warmup=100, ema=0.995, save_every=500)
SYSTEMS = ("dtpm", "gen2res", "diffir")
LONG = 8  # steps of the teacher above which its chain is not run again for every batch


def loss(
    teacher: nn.Module,
    student: nn.Module,
    problem: Problem,
    batch: dict[str, Tensor],
    *,
    steps: Steps,
    teacher_steps: Steps,
    recipe: UnrolledRecipe,
) -> dict[str, Tensor]:
    """The terms of `UnrolledRecipe`. The teacher's end: of batch's `states` the last, else by `teacher_steps`."""
    with torch.no_grad():
        known = STATES in batch
        aim = batch[STATES][:, -1] if known else problem.sample(teacher, problem.start, teacher_steps)
        picture = problem.compose(teacher, aim)
    end = problem.sample(student, problem.start, steps)
    restored = problem.compose(student, end)
    figures = {
        "end": F.mse_loss(end, aim),
        "psnr": psnr_loss(restored, problem.clean),
        "l1": F.l1_loss(restored, problem.clean),
        "detail": detail_loss(restored, picture).mean(),
    }
    terms = [getattr(recipe, name) * value for name, value in figures.items()]
    return {"loss": torch.stack(terms).sum(), **figures}


def build(recipe: UnrolledRecipe, system: System, data: Data, run: Path, device: torch.device) -> DistillStage:
    """The stage; what a long chain of the teacher arrives at is computed first and kept in the folder `run`."""
    steps = system.student_steps(recipe.sampling_steps, recipe.teacher_steps)
    teacher_steps = system.steps(recipe.teacher_steps)
    long = teacher_steps.step_count > LONG
    paths = trajectories(system, data.train.at(0), steps, recipe, run, device) if long else None
    of = partial(loss, steps=steps, teacher_steps=teacher_steps, recipe=recipe)
    return DistillStage("unrolled", system, recipe, data, of, paths)
