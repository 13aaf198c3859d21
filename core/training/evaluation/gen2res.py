"""Gen2Res on albums: one photo of each is held out and damaged, the base model is constrained to the others.

Identity is shown by the distance of the result to the album's own photos in the semantic encoder: 1 minus the cosine
of the two codes, mean over the album.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...arrays import Image
from ...image import is_photo, read
from ...models import checkpoints
from ...models.checkpoints import Checkpoint
from ...models.dtpm import Predictor
from ...models.gen2res import Denoiser, build, restore
from ...models.semantic import SemanticEncoder
from ...noise import normal
from ...schedule import ddpm, strided
from ...thumbnail import shrink, thumbnail
from ..gen2res import constrain
from ..loop import train
from ..photos import Data, Levels, gather, levels
from ..sources import file_hash
from .dtpm import INPUT
from .score import Case, Row, Table, cases, measure, square

__all__ = ["DISTANCE", "Sampling", "evaluate", "fitted", "overall"]

DISTANCE = "album distance"
DRAWS = 4  # of the damage to the held-out photo
FREE, CONSTRAINED, REGRESSOR, TRUTH = "no album", "Gen2Res, album", "regressor alone", "the true photo"


@dataclass(frozen=True)
class Sampling:
    """How photos are restored: from `start` of 1000 levels in `steps` steps of `sampler`."""

    start: int = 100
    steps: int = 20
    sampler: str = "ancestral"


def fitted(path: Path, side: int) -> Levels:
    """The photo at `path` shrunk until its shorter side is `side`, its centre square: (side, side, 3) uint8."""
    pixels = levels(read(path).pixels, halve=False)
    height, width = pixels.shape[:2]
    small = np.empty((*(round(length * side / min(height, width)) for length in (height, width)), 3), np.uint8)
    shrink(pixels, small)
    return square(small, side)


def evaluate(
    album: Path,
    base_path: Path,
    predictor: Predictor,
    encoder: SemanticEncoder,
    work: Path,
    *,
    task: str,
    side: int,
    sampling: Sampling,
) -> Table:
    """One album: the first photo, damaged by `task`, restored with and without the others. `work`: for the run."""
    held, *others = sorted(path for path in album.iterdir() if is_photo(path))
    found = cases([fitted(held, side)] * DRAWS, task)
    photos = [fitted(path, side) for path in others]
    distance = {DISTANCE: _distance_to(encoder, photos)}
    base = checkpoints.load(base_path, "gen2res")
    inputs = {"gen2res": file_hash(base_path), "album": sha256(np.stack(photos).tobytes()).hexdigest()}
    model = build(_constrained(base, photos, work, inputs))

    def row(name: str, method: Callable[[Case], Tensor]) -> Row:
        return measure(name, method, found, distance)

    rows = [
        row(INPUT, lambda case: case.image),
        row(REGRESSOR, lambda case: predictor(case.image)),
        row(FREE, partial(_restored, build(base), sampling)),
        row(CONSTRAINED, partial(_restored, model, sampling)),
        row(TRUTH, lambda case: case.clean),
    ]
    return Table(f"Gen2Res, album `{album.name}`, task `{task}`", rows, _verdicts(Table("", rows, ())))


def _constrained(base: Checkpoint, photos: Sequence[Levels], run: Path, inputs: Mapping[str, str]) -> Checkpoint:
    """The base constrained to photos of the size that is restored; a finished run is used again."""
    recipe = replace(constrain.RECIPE, shrink=1)
    pool = gather(photos, minimum=recipe.crop, side=8, structures=False)
    data = Data(pool, pool)
    for _ in train(constrain.build(recipe, {"gen2res": base}, data), data, recipe, run, inputs=inputs):
        pass
    return checkpoints.load(run / "model.safetensors", "gen2res")


def _restored(denoiser: Denoiser, sampling: Sampling, case: Case) -> Tensor:
    steps, times = strided(sampling.steps, ddpm(), start=sampling.start)
    height, width = case.true.shape[:2]

    def noise(step: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(normal(0, step, (0, height), (0, width))))

    return restore(denoiser, case.image, noise, steps, times, sampling.sampler)


def _distance_to(encoder: SemanticEncoder, album: Sequence[Image]) -> Callable[[Image, Case], float]:
    with torch.inference_mode():
        codes = torch.cat([_code(encoder, photo) for photo in album])
    return lambda restored, _: float(1 - (_code(encoder, restored) @ codes.T).mean())


def _code(encoder: SemanticEncoder, photo: Image) -> Tensor:
    return F.normalize(encoder(torch.from_numpy(thumbnail(photo, encoder.config.size))))


def _verdicts(table: Table) -> list[str]:
    over_input = {m: table.change(m, CONSTRAINED, INPUT) for m in ("PSNR", "NIQE", DISTANCE)}
    over_free = {m: table.change(m, CONSTRAINED, FREE) for m in ("PSNR", "NIQE", DISTANCE)}
    shown = "shows" if over_free[DISTANCE] < 0 else "does not show"
    return [
        f"Over the input: {_changes(over_input)}.",
        f"The album's part, over the unconstrained base: {_changes(over_free)}. That the album keeps identity {shown} "
        "here.",
    ]


def _changes(changes: dict[str, float]) -> str:
    return ", ".join(f"{metric} {change:+.3f}" for metric, change in changes.items())


def overall(tables: Sequence[Table]) -> Table:
    """The means over all albums."""
    rows = [
        Row(row.method, {metric: fmean(t.value(row.method, metric) for t in tables) for metric in row.values})
        for row in tables[0].rows
    ]
    return Table(f"Gen2Res, mean of the {len(tables)} albums", rows, _verdicts(Table("", rows, ())))
