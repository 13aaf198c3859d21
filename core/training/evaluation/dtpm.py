"""DTPM on held-back photos: the damaged input, the predictor alone, null opponents, 4 and 50 steps of the whole model.

A few-step student is sampled with its own steps instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn

from ...arrays import Image, to_batch, to_image
from ...metrics import psnr
from ...metrics.baselines import NULLS, null_result
from ...models import checkpoints
from ...models.dtpm import Dtpm, DtpmConfig
from ...models.semantic_code import NoEncoder
from ...photo.resize import thumbnail
from ...sampling.schedule import SCHEDULES, trailing
from ...sampling.steps import GAIN, Steps, own_steps, sampled_deviation
from .score import EvaluationCase, MethodFigures, ResultTable, cases, measure, noise_of

__all__ = ["INPUT_ROW", "PREDICTOR_ROW", "evaluate", "restore"]

INPUT_ROW = "input"
PREDICTOR_ROW = "predictor alone"
GOOD = 40.0  # dB: a photo that the predictor brings this near to the truth needs no texture


def evaluate(model_path: Path, encoder: nn.Module | None, photos: Sequence[Image]) -> ResultTable:
    """Every row on the same photos (H, W, 3) uint8, with the damage of the model's task.

    encoder: the semantic encoder, for models that have a code. Null opponents are made at the mean PSNR of the first
    chain. Raises CheckpointError.
    """
    checkpoint = checkpoints.load(model_path, "dtpm")
    model = checkpoint.fill(Dtpm(checkpoints.from_dict(DtpmConfig, checkpoint.config))).eval()
    encode = encoder if encoder is not None and model.config.semantic.code else NoEncoder()
    task = checkpoint.facts["task"]
    found = cases(photos, task)
    rows = [measure(INPUT_ROW, lambda case: case.image, found)]
    rows += [measure(PREDICTOR_ROW, lambda case: model.predictor(case.image), found)]
    own, alpha_bars = own_steps(checkpoint.facts), SCHEDULES[model.config.schedule]()
    calibrations = []
    for steps in [own] if own else [Steps.of(*trailing(count, alpha_bars)) for count in (4, 50)]:
        deviation = sampled_deviation(checkpoint.facts, steps.step_count)
        method = partial(restore, model, encode, steps, gain=GAIN / deviation)
        rows += [measure(f"DTPM, {steps.step_count} steps, gain {GAIN:g}", method, found)]
        calibrations.append(_calibration(model, encode, steps, deviation, found))
    rows[2:2] = _null_rows(model, found, rows[2])
    table = ResultTable(f"DTPM, task `{task}`", rows)
    return replace(table, verdicts=[*_verdicts(table), *calibrations])


def restore(model: Dtpm, encoder: nn.Module, steps: Steps, case: EvaluationCase, gain: float = GAIN) -> Tensor:
    """The restored photo at this gain, (1, 3, H, W) in [0, 1]; H and W are multiples of `multiple_of`."""
    image, noise, code = _conditions(model, encoder, case)
    return model(image, code, noise, image.new_tensor([gain]), *steps).cpu()


def _conditions(model: Dtpm, encoder: nn.Module, case: EvaluationCase) -> tuple[Tensor, Tensor, Tensor]:
    """The damaged image, noise of its size and the semantic code, on the model's device."""
    size = model.config.semantic.size
    small = torch.from_numpy(thumbnail(case.damaged, size)) if size else torch.empty(1, 3, 0, 0)
    image, small, noise = (x.to(model.residual_scale.device) for x in (case.image, small, noise_of(case)(0)))
    return image, noise, model.encode(encoder, small)


def _null_rows(model: Dtpm, found: Sequence[EvaluationCase], ours: MethodFigures) -> Iterator[MethodFigures]:
    """The null opponents at the mean PSNR of `ours`."""
    with torch.inference_mode():
        bases = [to_image(model.predictor(case.image).clamp(0, 1).numpy(), np.uint8) for case in found]
    for name, texture in NULLS.items():
        result = null_result(texture, bases, [case.true for case in found], psnr, ours.values["PSNR"])
        made = dict(zip(found, result.images, strict=True))
        yield measure(name, lambda case, made=made: torch.from_numpy(to_batch(made[case])), found)


@torch.inference_mode()
def _calibration(
    model: Dtpm, encoder: nn.Module, steps: Steps, deviation: float, found: Sequence[EvaluationCase]
) -> str:
    """By how much the logarithm of the deviation of a photo's sampled residual differs from that of its true one."""
    errors = []
    for case in found:
        image, noise, code = _conditions(model, encoder, case)
        base, scale = model.predict(image)
        sampled = scale * model.residual(image, base, code, noise, *steps) / deviation
        errors.append(abs(float((sampled.std() / (case.clean.to(base) - base).std()).log())))
    off = f"the deviation of a photo's samples is off by {fmean(errors):.2f} in its logarithm."
    return f"Calibration, {steps.step_count} steps: {off}"


def _verdicts(table: ResultTable) -> Iterator[str]:
    few, *many = (row.method for row in table.rows if row.method.startswith("DTPM"))
    gains = [table.change("PSNR", method, INPUT_ROW) for method in (PREDICTOR_ROW, few)]
    yield f"Over the input: the predictor {gains[0]:+.2f} dB, the whole model {gains[1]:+.2f} dB."
    for other in (PREDICTOR_ROW, *NULLS):
        differences = {metric: table.difference(metric, few, other) for metric in ("SWD", "HaarPSI", "NIQE")}
        parts = (f"{m} {d.mean:+.4f} ({d.low:+.4f} to {d.high:+.4f})" for m, d in differences.items())
        yield f"Texture, minus {other}: {', '.join(parts)}; in brackets 95 % intervals over the photos."
    alone, whole = ({row.method: row for row in table.rows}[name].each["PSNR"] for name in (PREDICTOR_ROW, few))
    losses = [a - b for a, b in zip(alone, whole, strict=True) if a > GOOD]
    if losses:
        yield f"Photos above {GOOD:g} dB lose at most {max(losses):.2f} dB to the texture ({len(losses)} photos)."
    for other in many:
        psnr_change, niqe = (table.change(metric, other, few) for metric in ("PSNR", "NIQE"))
        yield f"50 steps against 4: PSNR {psnr_change:+.2f} dB, NIQE {niqe:+.2f}."
