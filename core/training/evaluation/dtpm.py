"""DTPM on held-back photos: the damaged input, the predictor alone, 4 and 50 steps of the whole model.

A few-step student is sampled with its own steps instead.
"""

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
from ...models.steps import Steps, own_steps
from ...noise import normal
from ...schedule import SCHEDULES, trailing
from ...thumbnail import thumbnail
from .score import Case, Table, cases, measure

__all__ = ["GAIN", "INPUT", "PREDICTOR", "evaluate", "load_encoder", "restore"]

GAIN = 0.5  # texture gain of strength 1, as in the embedded pack
INPUT, PREDICTOR = "input", "predictor alone"


def load_encoder(path: Path) -> SemanticEncoder:
    """A trained semantic encoder. Raises CheckpointError."""
    checkpoint = checkpoints.load(path, "semantic")
    encoder = SemanticEncoder(checkpoints.from_dict(SemanticConfig, checkpoint.config))
    encoder.load_state_dict(checkpoint.part("encoder"))
    return encoder.eval()


def evaluate(model_path: Path, encoder: SemanticEncoder, photos: Sequence[Image]) -> Table:
    """Every row on the same photos (H, W, 3) uint8, with the damage of the model's task. Raises CheckpointError."""
    checkpoint = checkpoints.load(model_path, "dtpm")
    model = Dtpm(checkpoints.from_dict(DtpmConfig, checkpoint.config)).eval()
    checkpoint.fill(model)
    task = checkpoint.facts["task"]
    found = cases(photos, task)
    rows = [measure(INPUT, lambda case: case.image, found)]
    rows += [measure(PREDICTOR, lambda case: model.predictor(case.image), found)]
    for steps in _chains(model, own_steps(checkpoint.facts)):
        rows += [measure(f"DTPM, {steps.count} steps, gain {GAIN:g}", partial(restore, model, encoder, steps), found)]
    return Table(f"DTPM, task `{task}`", rows, _verdicts(Table("", rows, ())))


def _chains(model: Dtpm, own: Steps | None) -> list[Steps]:
    bars = SCHEDULES[model.config.schedule]()
    return [own] if own else [Steps.of(*trailing(count, bars)) for count in (4, 50)]


def restore(model: Dtpm, encoder: SemanticEncoder, steps: Steps, case: Case) -> Tensor:
    """The restored photo at the gain of the packs, (1, 3, H, W) in [0, 1]; H and W are multiples of `multiple_of`."""
    height, width = case.true.shape[:2]
    small = torch.from_numpy(thumbnail(case.damaged, encoder.config.size))
    noise = torch.from_numpy(np.ascontiguousarray(normal(0, 0, (0, height), (0, width))))
    image, small, noise = (x.to(model.residual_scale.device) for x in (case.image, small, noise))
    return model(image, model.encode(encoder, small), noise, image.new_tensor([GAIN]), *steps).cpu()


def _verdicts(table: Table) -> list[str]:
    few, *many = (row.method for row in table.rows[2:])
    gains = [table.change("PSNR", method, INPUT) for method in (PREDICTOR, few)]
    psnr, niqe, swd = (table.change(metric, few, PREDICTOR) for metric in ("PSNR", "NIQE", "SWD"))
    shown = "shows" if niqe < 0 and swd < 0 else "does not show"
    return [
        f"Over the input: the predictor {gains[0]:+.2f} dB, the whole model {gains[1]:+.2f} dB.",
        f"Texture, over the predictor: NIQE {niqe:+.2f}, SWD {swd:+.4f}, at {psnr:+.2f} dB. The paper's claim (better "
        f"to look at, not closer to the truth) {shown} at this size.",
        *(
            f"50 steps against 4: PSNR {table.change('PSNR', other, few):+.2f} dB, "
            f"NIQE {table.change('NIQE', other, few):+.2f}."
            for other in many
        ),
    ]
