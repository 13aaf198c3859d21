"""DiffIR on held-back photos: what its prior is worth, in stage 2, in stage 1 and without diffusion.

Each model restores every photo under three priors: the photo's own, the next photo's, and the mean of all. A prior that
says nothing about its photo is worth as much as the mean; one that the transformer ignores, as much as another photo's.
V1, the ablation of the paper, is a model that was trained without diffusion: its CPEN_S2 estimates the prior itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ...arrays import Image
from ...errors import CheckpointError
from ...models import checkpoints
from ...models.diffir import Diffir, DiffirConfig, Teacher
from ...models.dirformer import Dirformer
from ...sampling.noise import normal_vector
from .dtpm import INPUT_ROW
from .score import EvaluationCase, MethodFigures, RestoreMethod, ResultTable, cases, measure

__all__ = ["evaluate"]

M = TypeVar("M", bound=nn.Module)

OWN, OTHER, MEAN = "its own prior", "another photo's prior", "the mean prior"
STUDENT, TEACHER, V1 = "stage 2", "stage 1", "V1, trained without diffusion"


def evaluate(
    model_path: Path, pretrain_path: Path, photos: Sequence[Image], v1_path: Path | None = None
) -> ResultTable:
    """Every row on the same photos (H, W, 3) uint8 with the damage of the model's task.

    v1_path: a "diffir" checkpoint that was trained with `model.steps=0`, if there is one. Raises CheckpointError for
    files that are not what they are given as.
    """
    checkpoint = checkpoints.load(model_path, "diffir")
    task = checkpoint.facts["task"]
    found = cases(photos, task)
    model, teacher = _filled(Diffir, checkpoint), _filled(Teacher, checkpoints.load(pretrain_path, "diffir-pretrain"))
    rows = [measure(INPUT_ROW, lambda case: case.image, found)]
    if v1_path is not None:
        plain = _filled(Diffir, checkpoints.load(v1_path, "diffir"))
        if plain.config.steps:
            raise CheckpointError(
                f"{v1_path} was trained with {plain.config.steps} diffusion steps; V1 is trained with "
                "--set model.steps=0"
            )
        rows.append(measure(V1, lambda case: plain.restore(case.image, plain.condition(case.image)), found))
    noise = torch.from_numpy(normal_vector(0, 0, model.config.ipr))
    with torch.inference_mode():
        estimated = [model.prior(model.condition(case.image), noise) for case in found]
        true = [teacher.cpen(case.image, case.clean) for case in found]
    rows += _under_priors(STUDENT, model.dirformer, found, estimated)
    rows += _under_priors(TEACHER, teacher.dirformer, found, true)
    table = ResultTable(f"DiffIR, task `{task}`", rows)
    own = _row(STUDENT, OWN)
    pairs = [(own, INPUT_ROW)] + ([(own, V1)] if v1_path is not None else [])
    pairs += [(_row(name, OWN), _row(name, kind)) for name in (STUDENT, TEACHER) for kind in (OTHER, MEAN)]
    pairs.append((_row(TEACHER, OWN), own))
    return replace(table, verdicts=[table.compared("PSNR", of, over) for of, over in pairs])


def _filled(network: Callable[[DiffirConfig], M], checkpoint: checkpoints.Checkpoint) -> M:
    return checkpoint.fill(network(checkpoints.from_dict(DiffirConfig, checkpoint.config))).eval()


def _under_priors(
    name: str, restore: Dirformer, found: Sequence[EvaluationCase], priors: Sequence[Tensor]
) -> list[MethodFigures]:
    mean = torch.cat(list(priors)).mean(dim=0, keepdim=True)
    given = {OWN: priors, OTHER: [*priors[1:], priors[0]], MEAN: [mean] * len(priors)}

    def under(chosen: Sequence[Tensor]) -> RestoreMethod:
        prior_of = dict(zip(found, chosen, strict=True))
        return lambda case: restore(case.image, prior_of[case])

    return [measure(_row(name, kind), under(chosen), found) for kind, chosen in given.items()]


def _row(name: str, kind: str) -> str:
    return f"{name}, {kind}"
