"""Unrolled distillation: the student's whole chain runs with gradients, and is judged on the restored image.

The loss has the terms of DTPM's finish and, from the same noise, the end of the teacher's chain and its image. A
DiffIR's chain is a few vectors, so this is all its students need.
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
from .stage import DistillMethod, DistillStage
from .system import DistillSystem, Problem
from .trajectory import STATES, TrajectoryRecipe, trajectories

__all__ = ["METHOD", "UnrolledRecipe", "loss"]

LONG = 8  # steps of the teacher above which its chain is not run again for every batch


@dataclass(frozen=True)
class UnrolledRecipe(TrajectoryRecipe):
    """How to learn through the chain.

    loss = end * MSE(end of the chain, the teacher's) + psnr * (minus PSNR in dB) + l1 * L1 + detail * `detail_loss`, of
    the restored image. The detail is compared with the teacher's image: the teacher decides how much texture there is.
    """

    end: float = 1.0
    psnr: float = 0.0
    l1: float = 1.0
    detail: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end + self.psnr + self.l1 <= 0:
            raise UsageError("end, psnr or l1 must be above 0, or nothing would tie the student to the image")


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
    """The terms of `UnrolledRecipe`. The teacher's end is the last of the batch's `states`, else it is sampled."""
    with torch.no_grad():
        known = STATES in batch
        aim = batch[STATES][:, -1] if known else problem.sample(teacher, problem.start, teacher_steps)
        image = problem.compose(teacher, aim)
    end = problem.sample(student, problem.start, steps)
    restored = problem.compose(student, end)
    figures = {
        "end": F.mse_loss(end, aim),
        "psnr": psnr_loss(restored, problem.clean),
        "l1": F.l1_loss(restored, problem.clean),
        "detail": detail_loss(restored, image).mean(),
    }
    terms = [getattr(recipe, name) * value for name, value in figures.items()]
    return {"loss": torch.stack(terms).sum(), **figures}


def build(recipe: UnrolledRecipe, system: DistillSystem, data: Data, run: Path, device: torch.device) -> DistillStage:
    """The stage; first computes the ends of a long chain of the teacher, and keeps them in the folder `run`."""
    steps = system.student_steps(recipe.sampling_steps, recipe.teacher_steps)
    teacher_steps = system.steps(recipe.teacher_steps)
    long = teacher_steps.step_count > LONG
    rows = trajectories(system, data.train.at(0), steps, recipe, run, device) if long else None
    of = partial(loss, steps=steps, teacher_steps=teacher_steps, recipe=recipe)
    return DistillStage("unrolled", system, recipe, data, of, rows)


METHOD = DistillMethod(
    UnrolledRecipe(steps=2000, batch=8, crop=64, rate=5e-4, warmup=100, ema=0.995, save_every=500),
    ("dtpm", "gen2res", "diffir"),
    build,
)
