"""`pocketprior evaluate`: what the trained systems do to held-back photos, as one page of tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ...arrays import Image
from ...degradations import TASKS
from ...errors import UsageError
from ...files import atomic_output, failure_reason
from ...models import checkpoints
from ...models.dtpm import DtpmConfig, Predictor
from ...models.gen2res import SHIPPED_BASE, build, load_base
from ...photo.io import read
from ...photo.listing import clean_photos
from ..data.photos import levels
from ..evaluation import diffir, dtpm, gen2res
from ..evaluation.score import Table, page, square

__all__ = ["add_arguments", "run"]

MODEL = "model.safetensors"
NOISY_PHOTOS, NOISY_SIDE = 6, 192  # evenly spaced, their centres: BM3D takes its time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--data", type=Path, required=True, help="folder of photos with a manifest.csv")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="folder of them (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path(".cache/evaluate"), help="runs of albums (%(default)s)")
    parser.add_argument("--side", type=int, default=320, help="of the centre squares, pixels (%(default)s)")
    parser.add_argument("--task", choices=TASKS, default="noise", help="damage of album photos (%(default)s)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the page, such as docs/results.md")


def run(args: argparse.Namespace) -> int:
    """Measure every system whose checkpoint is there and write the page."""
    if not args.out.parent.is_dir():
        raise UsageError(f"the folder of '{args.out}' does not exist; make it, or choose another -o")
    listed = clean_photos(args.data, split="val", use="any")
    photos = [square(levels(read(row.path).pixels, halve=True), args.side) for row in listed if row.set != "dreambooth"]
    albums = sorted({row.path.parent for row in listed if row.set == "dreambooth"})
    tables = [*_with_tasks(args.checkpoints, photos), *_with_noise(photos), *_with_albums(args, albums)]
    text = page(
        f"pocketprior evaluate --data DATA --task {args.task} -o docs/results.md",
        f"the centre {args.side} x {args.side} of {len(photos)} held-back photos; {len(albums)} held-back albums",
        tables,
    )
    try:
        with atomic_output(args.out, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{args.out}' cannot be written: {failure_reason(error)}") from error
    print(f"{args.out}: {len(tables)} tables")
    return 0


def _with_tasks(folder: Path, photos: Sequence[Image]) -> list[Table]:
    """One DTPM per task, in the folder of its task's name; one DiffIR with its first stage, and V1 if it is there."""
    semantic = folder / "semantic" / MODEL
    encoder = dtpm.load_encoder(semantic) if semantic.exists() else None
    found = [dtpm.evaluate(folder / task / MODEL, encoder, photos) for task in TASKS if (folder / task).is_dir()]
    v1 = folder / "diffir-v1" / MODEL
    return [
        *found,
        diffir.evaluate(
            folder / "diffir" / MODEL, folder / "diffir-pretrain" / MODEL, photos, v1 if v1.exists() else None
        ),
    ]


def _with_noise(photos: Sequence[Image]) -> list[Table]:
    """The base of Gen2Res on some of the photos, at each strength of the noise."""
    count = min(NOISY_PHOTOS, len(photos))
    chosen = [square(levels(photos[i * len(photos) // count], halve=False), NOISY_SIDE) for i in range(count)]
    denoiser = build(load_base(SHIPPED_BASE))
    return [gen2res.noise_table(denoiser, chosen, sigma) for sigma in gen2res.SIGMAS]


def _with_albums(args: argparse.Namespace, albums: Sequence[Path]) -> list[Table]:
    checkpoint = checkpoints.load(args.checkpoints / "predictor" / MODEL, "predictor")
    predictor = Predictor(checkpoints.from_dict(DtpmConfig, checkpoint.config).predictor).eval()
    predictor.load_state_dict(checkpoint.tensors)
    tables = [
        gen2res.evaluate(album, SHIPPED_BASE, predictor, args.work / album.name, task=args.task, side=args.side)
        for album in albums
    ]
    return [*tables, gen2res.overall(tables)] if tables else []
