"""Unrolled distillation: the student's whole chain runs with gradients, and is judged on the restored image.

The loss has the terms of DTPM's finish and, from the same noise, the end of the teacher's chain and its image. A
DiffIR's chain is a few vectors, so this is all its students need.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import UsageError
from ..core.training.losses import detail_loss, psnr_loss
from .distillation import weighted_sum
from .trajectory import STATES, TrajectoryRecipe, TrajectoryStage

__all__ = ["UnrolledRecipe", "UnrolledStage"]


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


class UnrolledStage(TrajectoryStage):
    """Learns through its chain; first computes the ends of a long chain of the teacher, kept in the run folder."""

    method = "unrolled"
    systems = ("dtpm", "gen2res", "diffir")
    default = UnrolledRecipe(steps=2000, batch=8, rate=5e-4, warmup=100, save_every=500)
    short = 8

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of `UnrolledRecipe`. The teacher's end is the last of the batch's `states`, else it is sampled."""
        problem, teacher = self.system.problem(batch), self.system.teacher
        with torch.no_grad():
            aim = batch[STATES][:, -1] if STATES in batch else problem.sample(teacher, self.teacher_steps)
            image = problem.compose(teacher, aim)
        end = problem.sample(self.model, self.steps)
        restored = problem.compose(self.model, end)
        figures = {
            "end": F.mse_loss(end, aim),
            "psnr": psnr_loss(restored, problem.clean),
            "l1": F.l1_loss(restored, problem.clean),
            "detail": detail_loss(restored, image).mean(),
        }
        return weighted_sum(figures, self.recipe)


METHOD = UnrolledStage
