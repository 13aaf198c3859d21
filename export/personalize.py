"""`pocketprior personalize ALBUM -o PACK`: constrain the base of Gen2Res to an album and write a pack of it.

The one module that trains and exports: an album goes in, what an app embeds comes out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from ..core.models.gen2res import SHIPPED_BASE, USUAL_STEPS, load_base
from ..core.pack.systems import SYSTEMS
from ..core.photo.listing import photos_in
from ..core.training.data.photos import TrainingData, load
from ..core.training.data.sources import file_hash
from ..core.training.gen2res.album import is_generated
from ..core.training.gen2res.base import CONSTRAIN_METHODS, CONSTRAIN_STAGE, VAL_CROP, ConstrainRecipe
from ..core.training.loop.loop import CHECKPOINT_NAME, train
from ..core.training.loop.resume import STATE_NAME
from .gen2res import Gen2ResSource
from .pack import check_place, write_pack

__all__ = ["add_arguments", "constrain", "run"]

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("album", type=Path, help="folder of clean photos, or one that 'pocketprior album' made")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the pack; must not exist")
    parser.add_argument(
        "--run", type=Path, help="run folder of the training (PACK.run); an unfinished one is continued"
    )
    parser.add_argument("--base", type=Path, help="checkpoint of the base model (the one that comes along)")
    parser.add_argument(
        "--method",
        choices=CONSTRAIN_METHODS,
        default=CONSTRAIN_STAGE.recipe.method,
        help="what is trained (%(default)s)",
    )
    parser.add_argument("--steps", type=int, default=CONSTRAIN_STAGE.recipe.steps, help="of the training (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change another recipe field")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw batches (%(default)s)")
    parser.add_argument("--name", help="name of the pack (that of its folder)")
    parser.add_argument(
        "--level", type=int, default=0, help="K of 1000 to which photos are noised at least (0: no noise is added)"
    )
    parser.add_argument(
        "--sampler", choices=SYSTEMS["gen2res"].samplers, default="ddim", help="of the restoration (%(default)s)"
    )
    parser.add_argument(
        "--sampling-steps", type=int, default=USUAL_STEPS, metavar="N", help="of the restoration (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Train, then write the pack; Ctrl-C keeps what is learnt, and the same command goes on from there."""
    check_place(args.out)
    recipe = replace(CONSTRAIN_STAGE.recipe, method=args.method, steps=args.steps, mirror=is_generated(args.album))
    folder = args.run or args.out.with_name(f"{args.out.name}.run")
    source = Gen2ResSource(folder / CHECKPOINT_NAME, args.sampler, args.level, args.sampling_steps)
    source.schedule()  # refused before the training, not after
    photos = photos_in(args.album)
    try:
        constrain(photos, args.base, recipe.with_settings(args.set), folder, workers=args.workers)
    except KeyboardInterrupt:
        if (folder / STATE_NAME).exists():
            print(f"stopped; run the same command to go on from {folder / STATE_NAME}", file=sys.stderr)
        return INTERRUPTED
    trained_on = "" if args.base else SHIPPED_BASE.with_name("PHOTOS.md").read_text(encoding="utf-8")
    manifest = write_pack(source, args.out, name=args.name or args.out.name, photos=photos, trained_on=trained_on)
    print(f"{args.out}: {sum(file.bytes for file in manifest.files()) / 1e6:.2f} MB, {manifest.golden['photo'].reason}")
    return 0


def constrain(
    photos: Sequence[Path], base: Path | None, recipe: ConstrainRecipe, folder: Path, *, workers: int = 1
) -> Path:
    """Constrain a base model to an album in a run folder, or go on with it; the path of the checkpoint.

    photos: the album. base: a "gen2res" checkpoint, None for the one that comes along. Raises CheckpointError when
    there is none, PhotoReadError for a photo that cannot be read, TrainingError when all are smaller than the crop, or
    the run folder is of another training.
    """
    earlier = load_base(base)
    least = max(recipe.crop, VAL_CROP)
    pool = load(photos, minimum=least, side=0, structures=False)
    if len(pool.photos) < len(photos):
        small = len(photos) - len(pool.photos)
        print(f"{small} of {len(photos)} photos are smaller than {least} pixels and left out", file=sys.stderr)
    inputs = {path.name: file_hash(path) for path in photos} | {"base": file_hash(base or SHIPPED_BASE)}
    torch.manual_seed(recipe.seed)
    data = TrainingData(pool, pool)
    stage = CONSTRAIN_STAGE.build(recipe, {"gen2res": earlier}, data)
    try:
        for _ in train(stage, data, recipe, folder, inputs=inputs, workers=workers):
            pass
    finally:
        PartialState().destroy_process_group()
    return folder / CHECKPOINT_NAME
