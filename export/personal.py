"""The public function `personalize`: constrain the base of Gen2Res to an album of one subject and write a pack of it.

The one module that trains and exports. Without an album, the base model generates one around the damaged photo first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import PartialState

from ..core.models.gen2res import SHIPPED_BASE, USUAL_STEPS, load_base
from ..core.pack.manifest import Manifest
from ..core.photo.listing import photos_in
from ..core.training.data.photos import TrainingData, load
from ..core.training.data.sources import file_hash
from ..core.training.gen2res.album import Album, draw_album, is_generated
from ..core.training.gen2res.base import CONSTRAIN_STAGE, VAL_CROP, ConstrainRecipe
from ..core.training.loop.loop import CHECKPOINT_NAME, train
from .systems.gen2res import Gen2ResSource
from .writer.pack import PackOptions, check_place, write_pack

__all__ = ["PersonalizeOptions", "constrain", "personalize"]


@dataclass(frozen=True)
class PersonalizeOptions:
    """How the base model is constrained to an album, and how the pack samples."""

    recipe: ConstrainRecipe = CONSTRAIN_STAGE.recipe  # `mirror` follows from the album
    base: Path | None = None  # checkpoint of the base model, None for the one of the package
    run: Path | None = None  # run folder of the training, None for PACK.run
    workers: int = 1  # processes that draw batches
    name: str = ""  # of the pack, "" for that of its folder
    level: int = 0  # K of 1000 to which photos are noised at least; 0 adds no noise
    sampler: str = "ddim"
    sampling_steps: int = USUAL_STEPS
    around: Path | None = None  # damaged photo around which the album is generated first
    generated: Album = field(default_factory=Album)  # how that album is generated
    album_side: int = 256  # longer side that the photo is scaled to, pixels
    album_batch: int = 4  # images drawn at a time


def personalize(album: Path, folder: Path, options: PersonalizeOptions | None = None) -> Manifest:
    """Fine-tune on an album and export a pack, whose manifest is returned; the same call resumes an interrupted one.

    Args:
        album: Folder of clean photos of one subject; with `around`, the folder in which the album is generated.
        folder: Of the pack; it must not exist.
        options: How; None for the defaults.

    Raises:
        UsageError: Options do not fit, or the album was made from another photo.
        CheckpointError: There is no base model.
        PhotoReadError: A photo cannot be read.
        TrainingError: All photos are smaller than the crop, or the run folder belongs to another training.
        KeyboardInterrupt: Ctrl-C; finished images and the state of the training are kept.
    """
    options = options or PersonalizeOptions()
    check_place(folder)
    run = options.run or folder.with_name(f"{folder.name}.run")
    source = Gen2ResSource(run / CHECKPOINT_NAME, options.sampler, options.level, options.sampling_steps)
    source.schedule()  # refused before the training, not after
    if options.around is not None:
        side, batch = options.album_side, options.album_batch
        draw_album(options.around, album, options.generated, base=options.base, side=side, batch=batch)
    photos = photos_in(album)
    recipe = replace(options.recipe, mirror=is_generated(album))
    constrain(photos, options.base, recipe, run, workers=options.workers)
    trained_on = "" if options.base else SHIPPED_BASE.with_name("PHOTOS.md").read_text(encoding="utf-8")
    return write_pack(source, folder, photos, PackOptions(name=options.name, trained_on=trained_on))


def constrain(
    photos: Sequence[Path], base: Path | None, recipe: ConstrainRecipe, folder: Path, *, workers: int = 1
) -> Path:
    """Constrain a base model, None for the one of the package, to an album in a run folder, or resume that.

    Returns the path of the checkpoint; `workers` processes draw batches. Errors are those of `personalize`.
    """
    earlier = load_base(base)
    least = max(recipe.crop, VAL_CROP)
    pool = load(photos, minimum=least, side=0, structures=False)
    if len(pool.photos) < len(photos):
        small = len(photos) - len(pool.photos)
        print(f"left out {small} of {len(photos)} photos, which are smaller than {least} pixels", file=sys.stderr)
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
