"""Gen2Res on plain noise, with BM3D, and on albums: one photo of each is held out, the rest constrain the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from ...arrays import Image, to_batch
from ...metrics.baselines import bm3d
from ...models import checkpoints
from ...models.checkpoints import Checkpoint
from ...models.gen2res import NOISIEST, USUAL_STEPS, Denoiser, build, restore
from ...models.initial_predictor import Predictor
from ...photo.io import is_photo, read
from ...photo.resize import shrink
from ...restore.noise_sigma import noise_sigma
from ...sampling.schedule import ddpm, quadratic, strided
from ...sampling.steps import unclipped
from ..data.photos import Pixels, TrainingData, gather, to_8_bits
from ..data.sources import file_hash
from ..gen2res.base import CONSTRAIN_STAGE
from ..loop.loop import CHECKPOINT_NAME, train
from .dtpm import INPUT_ROW
from .score import EvaluationCase, MethodFigures, ResultTable, cases, measure, noise_of, square

__all__ = ["NOISE_SIGMAS", "evaluate", "noise_table", "overall"]

NOISE_SIGMAS = (15, 25, 50)  # of plain noise, grey levels
PAPER_LEVEL = 200  # K of 1000
DRAWS = 4  # of the damage to the held-out photo
FREE, CONSTRAINED, REGRESSOR, TRUTH = "no album", "Gen2Res, album", "regressor alone", "the true photo"
ESTIMATED, GIVEN = "Gen2Res, noise estimated", "Gen2Res, sigma given"
NOT_COUNTED = "Gen2Res, K = 200, noise not counted"
BM3D_GIVEN, BM3D_ESTIMATED = "BM3D, sigma given", "BM3D, noise estimated"
BM3D_UNCLIPPED = "BM3D, noise estimated, clipped values replaced"


def noise_table(denoiser: Denoiser, photos: Sequence[Image], sigma: int) -> ResultTable:
    """White noise of `sigma` grey levels, clipped and rounded to 8 bits, on photos (H, W, 3) uint8; BM3D as well.

    Raises MissingExtraError without the package bm3d.
    """
    found = [EvaluationCase(_noisy(photo, sigma, place), photo) for place, photo in enumerate(photos)]
    estimated = {case: noise_sigma(case.damaged) for case in found}
    by_bm3d = {case: bm3d(case.damaged, estimated[case]) for case in found}

    def unclipped_bm3d(case: EvaluationCase) -> Tensor:
        """Once more, with clipped values replaced as far as the first result shows them."""
        state, clean = case.damaged / 127.5 - 1, by_bm3d[case] / 127.5 - 1
        return _batch(bm3d((unclipped(state, clean, estimated[case] / 127.5) + 1) * 127.5, estimated[case]))

    published = strided(USUAL_STEPS, ddpm(), PAPER_LEVEL)  # from K whatever the noise, in the steps of `_restored`
    rows = [
        measure(INPUT_ROW, lambda case: case.image, found),
        measure(NOT_COUNTED, lambda case: restore(denoiser, case.image, noise_of(case), *published, "ddim"), found),
        measure(ESTIMATED, lambda case: _restored(denoiser, case, estimated[case]), found),
        measure(GIVEN, lambda case: _restored(denoiser, case, sigma), found),
        measure(BM3D_ESTIMATED, lambda case: _batch(by_bm3d[case]), found),
        measure(BM3D_GIVEN, lambda case: _batch(bm3d(case.damaged, sigma)), found),
        measure(BM3D_UNCLIPPED, unclipped_bm3d, found),
    ]
    table = ResultTable(f"Gen2Res, noise of sigma {sigma}", rows)
    estimates = ", ".join(f"{estimate:.1f}" for estimate in estimated.values())
    verdicts = [
        f"The noise is estimated at {estimates}.",
        f"Counting the photo's own noise: {table.change('PSNR', ESTIMATED, NOT_COUNTED):+.2f} dB over noising it to "
        f"K = {PAPER_LEVEL}; over BM3D with the same estimate {table.change('PSNR', ESTIMATED, BM3D_ESTIMATED):+.2f} "
        f"dB, with clipped values replaced there as well {table.change('PSNR', ESTIMATED, BM3D_UNCLIPPED):+.2f} dB.",
    ]
    return replace(table, verdicts=verdicts)


def _noisy(photo: Image, sigma: int, place: int) -> Image:
    noise = sigma * np.random.default_rng([2024, place, sigma]).standard_normal(photo.shape)
    return np.clip(np.round(photo + noise), 0, 255).astype(np.uint8)


def _batch(image: Image) -> Tensor:
    return torch.from_numpy(to_batch(image))


def _restored(denoiser: Denoiser, case: EvaluationCase, sigma: float) -> Tensor:
    """Entered at the level of `sigma` grey levels."""
    chain = quadratic(USUAL_STEPS, ddpm(), NOISIEST)
    return restore(denoiser, case.image, noise_of(case), *chain, "ddim", start_level=1.0, sigma=sigma / 255)


def _fitted(path: Path, side: int) -> Pixels:
    """The photo at `path` shrunk until its shorter side is `side`, its centre square: (side, side, 3) uint8."""
    pixels = to_8_bits(read(path).pixels, halve=False)
    height, width = pixels.shape[:2]
    small = np.empty((*(round(length * side / min(height, width)) for length in (height, width)), 3), np.uint8)
    shrink(pixels, small)
    return square(small, side)


def evaluate(album: Path, base_path: Path, predictor: Predictor, work: Path, *, task: str, side: int) -> ResultTable:
    """One album: the first photo, damaged by `task`, restored with and without the others. `work`: for the run."""
    held, *others = sorted(path for path in album.iterdir() if is_photo(path))
    found = cases([_fitted(held, side)] * DRAWS, task)
    photos = [_fitted(path, side) for path in others]
    base = checkpoints.load(base_path, "gen2res")
    inputs = {"gen2res": file_hash(base_path), "album": sha256(np.stack(photos).tobytes()).hexdigest()}
    free, constrained = build(base), build(_constrained(base, photos, work, inputs))
    rows = [
        measure(INPUT_ROW, lambda case: case.image, found),
        measure(REGRESSOR, lambda case: predictor(case.image), found),
        measure(FREE, lambda case: _restored(free, case, noise_sigma(case.damaged)), found),
        measure(CONSTRAINED, lambda case: _restored(constrained, case, noise_sigma(case.damaged)), found),
        measure(TRUTH, lambda case: case.clean, found),
    ]
    return ResultTable(f"Gen2Res, album `{album.name}`, task `{task}`", rows)


def _constrained(base: Checkpoint, photos: Sequence[Pixels], run: Path, inputs: Mapping[str, str]) -> Checkpoint:
    """The base constrained to photos of the size that is restored; a finished run is reused."""
    recipe = replace(CONSTRAIN_STAGE.recipe, shrink=1)
    pool = gather(photos, minimum=recipe.crop, side=8, structures=False)
    data = TrainingData(pool, pool)
    for _ in train(CONSTRAIN_STAGE.build(recipe, {"gen2res": base}, data), data, recipe, run, inputs=inputs):
        pass
    return checkpoints.load(run / CHECKPOINT_NAME, "gen2res")


def overall(tables: Sequence[ResultTable]) -> ResultTable:
    """The means over all albums."""
    rows = [
        MethodFigures(row.method, {metric: fmean(t.value(row.method, metric) for t in tables) for metric in row.values})
        for row in tables[0].rows
    ]
    table = ResultTable(f"Gen2Res, mean of the {len(tables)} albums", rows)
    changes = [f"{metric} {table.change(metric, CONSTRAINED, FREE):+.3f}" for metric in ("PSNR", "NIQE", "SWD")]
    verdicts = [
        f"The album's part, over the unconstrained base: {', '.join(changes)}.",
        "Whether the album keeps identity is not judged. It would take features that know the subject and were not "
        "trained on the same photos as the base; the semantic encoder of this project was, and none comes with it.",
    ]
    return replace(table, verdicts=verdicts)
