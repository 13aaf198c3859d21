"""The public function `personalize`: constrain the base of Gen2Res to an album of one subject and write a pack of it.

The one module that trains and exports. Without an album of the subject, the base model generates one around the damaged
photo first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm import tqdm

from ..core.errors import PhotoWriteError, UsageError
from ..core.files import atomic_output, failure_reason
from ..core.models.gen2res import SHIPPED_BASE, USUAL_STEPS, build, load_base
from ..core.pack.manifest import Manifest
from ..core.photo.io import read, write
from ..core.photo.listing import photos_in
from ..core.photo.photo import Photo
from ..core.photo.resize import shrink
from ..core.training.data.photos import Data, levels, load, planar
from ..core.training.data.sources import file_hash
from ..core.training.gen2res.album import Album, pictures
from ..core.training.gen2res.base import VAL_CROP
from ..core.training.gen2res.constrain import RECIPE, ConstrainRecipe
from ..core.training.gen2res.constrain import build as build_stage
from ..core.training.loop.loop import CHECKPOINT_NAME, train
from .systems.gen2res import Gen2ResSource
from .writer.entries import check_place
from .writer.pack import PackOptions, write_pack

__all__ = [
    "ALBUM_FACTS",
    "AlbumOptions",
    "PersonalizeOptions",
    "constrain",
    "generate_album",
    "is_generated",
    "personalize",
]

ALBUM_FACTS = "album.json"  # marks a generated album, and says what it was made from


@dataclass(frozen=True)
class AlbumOptions:
    """How an album is generated around a photo."""

    album: Album = field(default_factory=Album)
    side: int = 256  # longer side that the photo is scaled to, pixels
    batch: int = 4  # images made at one time

    def __post_init__(self) -> None:
        if self.batch < 1 or self.side < 1:
            raise UsageError(f"expected a side and a batch of 1 or more, got {self.side} and {self.batch}")


@dataclass(frozen=True)
class PersonalizeOptions:
    """How the base model is constrained to an album, and how the pack samples."""

    recipe: ConstrainRecipe = RECIPE  # `mirror` follows from the album: only generated ones are mirrored
    base: Path | None = None  # checkpoint of the base model, None for the one of the package
    run: Path | None = None  # run folder of the training, None for PACK.run
    workers: int = 1  # processes that draw batches
    name: str = ""  # of the pack, "" for that of its folder
    level: int = 0  # K of 1000 to which photos are noised at least; 0 adds no noise
    sampler: str = "ddim"
    sampling_steps: int = USUAL_STEPS
    around: Path | None = None  # damaged photo around which the album is generated first
    generation: AlbumOptions = field(default_factory=AlbumOptions)


def personalize(album: Path, folder: Path, options: PersonalizeOptions | None = None) -> Manifest:
    """Fine-tune on an album of one subject and export a pack; the same call resumes an interrupted one.

    Args:
        album: Folder of clean photos; with `around`, the folder in which the album is generated.
        folder: Of the pack; it must not exist.
        options: How; None for the defaults.

    Returns:
        The manifest of the pack.

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
        generate_album(options.around, album, options.base, options.generation)
    photos = photos_in(album)
    recipe = replace(options.recipe, mirror=is_generated(album))
    constrain(photos, options.base, recipe, run, workers=options.workers)
    trained_on = "" if options.base else SHIPPED_BASE.with_name("PHOTOS.md").read_text(encoding="utf-8")
    return write_pack(source, folder, photos, PackOptions(name=options.name, trained_on=trained_on))


def constrain(
    photos: Sequence[Path], base: Path | None, recipe: ConstrainRecipe, folder: Path, *, workers: int = 1
) -> Path:
    """Constrain a base model to an album in a run folder, or resume that; the path of the checkpoint.

    Args:
        photos: The album.
        base: A "gen2res" checkpoint, None for the one of the package.
        recipe: Of the training.
        folder: The run folder.
        workers: Processes that draw batches.

    Raises:
        CheckpointError: There is no base model.
        PhotoReadError: A photo cannot be read.
        TrainingError: All photos are smaller than the crop, or the run folder belongs to another training.
    """
    earlier = load_base(base)
    least = max(recipe.crop, VAL_CROP)
    pool = load(photos, minimum=least, side=0, structures=False)
    if len(pool.photos) < len(photos):
        small = len(photos) - len(pool.photos)
        print(f"left out {small} of {len(photos)} photos, which are smaller than {least} pixels", file=sys.stderr)
    inputs = {path.name: file_hash(path) for path in photos} | {"base": file_hash(base or SHIPPED_BASE)}
    torch.manual_seed(recipe.seed)
    data = Data(pool, pool)
    stage = build_stage(recipe, {"gen2res": earlier}, data)
    try:
        for _ in train(stage, data, recipe, folder, inputs=inputs, workers=workers):
            pass
    finally:
        PartialState().destroy_process_group()
    return folder / CHECKPOINT_NAME


def generate_album(
    photo: Path, folder: Path, base: Path | None = None, options: AlbumOptions | None = None
) -> list[Path]:
    """Generate the images that are missing in an album around a damaged photo; the images of the album.

    Args:
        photo: The damaged photo.
        folder: Of the album, which gets 00.png, 01.png, ... and `album.json`; an unfinished one is completed.
        base: A "gen2res" checkpoint, None for the one of the package.
        options: How; None for the defaults.

    Raises:
        UsageError: The photo is too small, or the folder belongs to another album or holds other files.
        PhotoReadError: The photo cannot be read.
        PhotoWriteError: The folder cannot be written.
    """
    options = options or AlbumOptions()
    denoiser = build(load_base(base))
    image = _scaled(read(photo), options.side, denoiser.multiple_of)
    facts = {"photo": file_hash(photo), "base": file_hash(base or SHIPPED_BASE), "side": options.side}
    _claim(folder, {**facts, **asdict(options.album)})
    places = [folder / f"{number:02d}.png" for number in range(options.album.count)]
    missing = [number for number, place in enumerate(places) if not place.exists()]
    with tqdm(total=len(places), initial=len(places) - len(missing), unit="image", disable=None) as progress:
        for number, made in pictures(denoiser, image, options.album, missing, options.batch):
            write(Photo(made), places[number])
            progress.update()
    return places


def is_generated(album: Path) -> bool:
    """Whether an album was generated rather than photographed."""
    return (album / ALBUM_FACTS).exists()


def _scaled(photo: Photo, side: int, multiple: int) -> Tensor:
    """The photo with a longer side of at most `side`, its centre cut to multiples: (1, 3, H, W) in [0, 1]."""
    height, width = photo.size
    factor = min(1.0, side / max(height, width))
    small = np.empty((max(1, round(height * factor)), max(1, round(width * factor)), 3), np.uint8)
    shrink(levels(photo.pixels, halve=False), small)
    rows, columns = (length - length % multiple for length in small.shape[:2])
    if min(rows, columns) == 0:
        raise UsageError(
            f"the photo of {width} x {height} pixels is {small.shape[1]} x {small.shape[0]} with a longer side of "
            f"{side}; both sides need at least {multiple} pixels: give a larger photo or --album-side"
        )
    y, x = (small.shape[0] - rows) // 2, (small.shape[1] - columns) // 2
    image = small[y : y + rows, x : x + columns].astype(np.float32) / np.float32(255)
    return torch.from_numpy(planar(image))[None]


def _claim(folder: Path, facts: dict[str, Any]) -> None:
    """Note in the folder what the album is made from, or check that it is what was noted."""
    path = folder / ALBUM_FACTS
    if path.exists():
        noted = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*noted, *facts} - {"count"} if noted.get(name) != facts.get(name))
        if changed:
            raise UsageError(
                f"the album in {folder} was made with another {', '.join(changed)}; use the same, or another folder"
            )
    elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is a file or holds other files; give an empty or a new folder for the album")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_output(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise PhotoWriteError(f"cannot write {path}: {failure_reason(error)}") from error
