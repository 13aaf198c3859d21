"""The page of results: every trained system whose checkpoint is there, on held-back photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...arrays import Image
from ...degradations import TASKS
from ...errors import UsageError
from ...files import atomic_output, failure_reason
from ...models import checkpoints
from ...models.dtpm import DtpmConfig, Predictor
from ...models.gen2res import SHIPPED_BASE, build, load_base
from ...models.semantic_code import encoder_of
from ...photo.io import read
from ...photo.listing import clean_photos
from ..data.photos import to_8_bits
from ..loop.loop import CHECKPOINT_NAME
from . import diffir, dtpm, gen2res
from .score import ResultTable, page, square

__all__ = ["evaluate"]

NOISY_PHOTOS, NOISY_SIDE = 6, 192  # evenly spaced, their centres: BM3D is slow


def evaluate(data: Path, out: Path, *, runs: Path, work: Path, side: int = 320, task: str = "noise") -> int:
    """Measure every trained system on held-back photos and write a page of tables.

    Args:
        data: Folder of photos with a manifest.csv; those with split=val and use=any are measured.
        out: The page, a Markdown file.
        runs: Folder of run folders: one per task for DTPM, "diffir", "diffir-pretrain", "predictor", ...
        work: Folder of the runs that constrain Gen2Res to albums; finished ones are used again.
        side: Side of the centre squares that are measured, pixels.
        task: Damage of the album photos; one of `degradations.TASKS`.

    Returns:
        The number of tables.

    Raises:
        UsageError: If the page cannot be written, or a photo is too small.
        CheckpointError: If a checkpoint is missing or of another kind.
        MissingExtraError: Without the package bm3d.
    """
    if not out.parent.is_dir():
        raise UsageError(f"the folder of '{out}' does not exist; create it, or choose another -o")
    listed = clean_photos(data, split="val", use="any")
    photos = [square(to_8_bits(read(row.path).pixels, halve=True), side) for row in listed if row.set != "dreambooth"]
    albums = sorted({row.path.parent for row in listed if row.set == "dreambooth"})
    tables = [
        *_with_tasks(runs, photos),
        *_with_noise(photos),
        *_with_albums(runs, albums, work, task, side),
    ]
    text = page(
        f"pocketprior evaluate --data DATA --task {task} -o docs/results.md",
        f"the centre {side} x {side} of {len(photos)} held-back photos; {len(albums)} held-back albums",
        tables,
    )
    try:
        with atomic_output(out, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{out}' cannot be written: {failure_reason(error)}") from error
    return len(tables)


def _with_tasks(folder: Path, photos: Sequence[Image]) -> list[ResultTable]:
    """A DTPM for each task, in the folder of that name; one DiffIR with its first stage, and V1 if it is there."""
    semantic, v1 = folder / "semantic" / CHECKPOINT_NAME, folder / "diffir-v1" / CHECKPOINT_NAME
    encoder = encoder_of(checkpoints.load(semantic, "semantic")) if semantic.exists() else None
    found = [
        dtpm.evaluate(folder / task / CHECKPOINT_NAME, encoder, photos) for task in TASKS if (folder / task).is_dir()
    ]
    model, pretrained = folder / "diffir" / CHECKPOINT_NAME, folder / "diffir-pretrain" / CHECKPOINT_NAME
    return [*found, diffir.evaluate(model, pretrained, photos, v1 if v1.exists() else None)]


def _with_noise(photos: Sequence[Image]) -> list[ResultTable]:
    """The base of Gen2Res on some of the photos, at each strength of the noise."""
    count = min(NOISY_PHOTOS, len(photos))
    chosen = [square(to_8_bits(photos[i * len(photos) // count], halve=False), NOISY_SIDE) for i in range(count)]
    denoiser = build(load_base(SHIPPED_BASE))
    return [gen2res.noise_table(denoiser, chosen, sigma) for sigma in gen2res.NOISE_SIGMAS]


def _with_albums(folder: Path, albums: Sequence[Path], work: Path, task: str, side: int) -> list[ResultTable]:
    checkpoint = checkpoints.load(folder / "predictor" / CHECKPOINT_NAME, "predictor")
    predictor = Predictor(checkpoints.from_dict(DtpmConfig, checkpoint.config).predictor).eval()
    predictor.load_state_dict(checkpoint.tensors)
    tables = [
        gen2res.evaluate(album, SHIPPED_BASE, predictor, work / album.name, task=task, side=side) for album in albums
    ]
    return [*tables, gen2res.overall(tables)] if tables else []
