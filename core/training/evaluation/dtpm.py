"""DTPM on held-back photos: the damaged input, the predictor alone, 4 and 50 steps of the whole model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...arrays import Image
from ...models import checkpoints
from ...models.dtpm import Dtpm, DtpmConfig
from ...models.semantic import SemanticConfig, SemanticEncoder
from ...noise import normal
from ...schedule import SCHEDULES, trailing
from ...thumbnail import thumbnail
from .score import Case, Table, cases, measure

__all__ = ["GAIN", "INPUT", "PREDICTOR", "evaluate", "load", "load_encoder"]

GAIN = 0.5  # texture gain of strength 1, as in the embedded pack
INPUT, PREDICTOR = "input", "predictor alone"


def load(path: Path) -> tuple[Dtpm, str]:
    """A trained DTPM and its task. Raises CheckpointError."""
    checkpoint = checkpoints.load(path, "dtpm")
    model = Dtpm(checkpoints.from_dict(DtpmConfig, checkpoint.config))
    model.load_state_dict(checkpoint.tensors)
    return model.eval(), checkpoint.facts["task"]


def load_encoder(path: Path) -> SemanticEncoder:
    """A trained semantic encoder. Raises CheckpointError."""
    checkpoint = checkpoints.load(path, "semantic")
    encoder = SemanticEncoder(checkpoints.from_dict(SemanticConfig, checkpoint.config))
    encoder.load_state_dict(checkpoint.part("encoder"))
    return encoder.eval()


def evaluate(model_path: Path, encoder: SemanticEncoder, photos: Sequence[Image]) -> Table:
    """Every row on the same photos (H, W, 3) uint8, with the damage of the model's task."""
    model, task = load(model_path)
    found = cases(photos, task)
    rows = [measure(INPUT, lambda case: case.image, found)]
    rows += [measure(PREDICTOR, lambda case: model.predictor(case.image), found)]
    for steps in (4, 50):
        restore = partial(_restore, model, encoder, steps)
        rows += [measure(f"DTPM, {steps} steps, gain {GAIN:g}", restore, found)]
    return Table(f"DTPM, task `{task}`", rows, _verdicts(Table("", rows, ())))


def _restore(model: Dtpm, encoder: SemanticEncoder, steps: int, case: Case) -> Tensor:
    height, width = case.true.shape[:2]
    code = encoder(torch.from_numpy(thumbnail(case.damaged, encoder.config.size)))
    noise = torch.from_numpy(np.ascontiguousarray(normal(0, 0, (0, height), (0, width))))
    levels, times = trailing(steps, SCHEDULES[model.config.schedule]())
    return model(case.image, code, noise, torch.tensor([GAIN]), levels, times)


def _verdicts(table: Table) -> list[str]:
    few, many = (row.method for row in table.rows[2:])
    gains = [table.change("PSNR", method, INPUT) for method in (PREDICTOR, few)]
    psnr, niqe, swd = (table.change(metric, few, PREDICTOR) for metric in ("PSNR", "NIQE", "SWD"))
    shown = "shows" if niqe < 0 and swd < 0 else "does not show"
    return [
        f"Over the input: the predictor {gains[0]:+.2f} dB, the whole model {gains[1]:+.2f} dB.",
        f"Texture, over the predictor: NIQE {niqe:+.2f}, SWD {swd:+.4f}, at {psnr:+.2f} dB. The paper's claim (better "
        f"to look at, not closer to the truth) {shown} at this size.",
        f"50 steps against 4: PSNR {table.change('PSNR', many, few):+.2f} dB, "
        f"NIQE {table.change('NIQE', many, few):+.2f}.",
    ]
