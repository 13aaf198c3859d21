"""DiffIR on held-back photos: with the diffused prior, with the condition in its place, with one prior for all.

The regressor alone is the same transformer under one fixed vector, the mean prior of all the photos. The ablation "no
diffusion" uses the condition vector D directly as the prior; the upper bound takes the prior from the ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...arrays import Image
from ...models import checkpoints
from ...models.diffir import Diffir, DiffirConfig, Teacher
from ...noise import normal_vector
from .dtpm import INPUT
from .score import Case, Table, cases, measure

__all__ = ["evaluate"]

REGRESSOR, NO_DIFFUSION, SYSTEM, BOUND = "regressor alone", "no diffusion", "DiffIR, 4 steps", "prior from the truth"


def evaluate(model_path: Path, pretrain_path: Path, photos: Sequence[Image]) -> Table:
    """Every row on the same photos (H, W, 3) uint8 with the damage of the model's task. Raises CheckpointError."""
    checkpoint = checkpoints.load(model_path, "diffir")
    config = checkpoints.from_dict(DiffirConfig, checkpoint.config)
    model, teacher = Diffir(config).eval(), Teacher(config).eval()
    model.load_state_dict(checkpoint.tensors)
    teacher.load_state_dict(checkpoints.load(pretrain_path, "diffir-pretrain").tensors)
    task = checkpoint.facts["task"]
    found = cases(photos, task)
    noise = torch.from_numpy(normal_vector(0, 0, config.ipr))
    average = _mean_prior(model, found, noise)
    rows = [
        measure(INPUT, lambda case: case.image, found),
        measure(REGRESSOR, lambda case: model.restore(case.image, average), found),
        measure(NO_DIFFUSION, lambda case: model.restore(case.image, model.condition(case.image)), found),
        measure(SYSTEM, lambda case: model(case.image, noise), found),
        measure(BOUND, lambda case: teacher(case.image, case.clean), found),
    ]
    return Table(f"DiffIR, task `{task}`", rows, _verdicts(Table("", rows, ())))


@torch.inference_mode()
def _mean_prior(model: Diffir, found: Sequence[Case], noise: Tensor) -> Tensor:
    return torch.cat([model.prior(model.condition(case.image), noise) for case in found]).mean(dim=0, keepdim=True)


def _verdicts(table: Table) -> list[str]:
    gains = [table.change("PSNR", SYSTEM, other) for other in (INPUT, REGRESSOR, NO_DIFFUSION)]
    prior = "earns its place" if gains[1] >= 0.05 else "adds next to nothing"
    diffusion = "shows" if gains[2] >= 0.05 else "does not show"
    return [
        f"Over the input {gains[0]:+.2f} dB.",
        f"A prior of this photo against the mean prior: {gains[1]:+.2f} dB; at this size it {prior}.",
        f"Diffusing the prior against using the condition directly: {gains[2]:+.2f} dB. That the diffusion is what "
        f"makes the prior good {diffusion} at this size.",
        f"The prior taken from the truth would be {table.change('PSNR', BOUND, SYSTEM):+.2f} dB from the system.",
    ]
