"""`pocketprior album PHOTO -o ALBUM`: the base model makes pictures around one damaged photo.

The folder gets 00.png, 01.png, ... and `album.json`, which says what they were made from.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...errors import PhotoWriteError, UsageError
from ...files import atomic_output, failure_reason
from ...models.gen2res import SHIPPED_BASE, build, load_base
from ...photo.io import read, write
from ...photo.photo import Photo
from ...photo.resize import shrink
from ..data.photos import planar, to_8_bits
from ..data.sources import file_hash
from ..gen2res.album import Album, album_images

__all__ = ["ALBUM_NAME", "add_arguments", "is_generated", "run"]

ALBUM_NAME = "album.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    usual = Album()
    parser.add_argument("photo", type=Path, help="the damaged photo")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="folder of the album; an unfinished one is continued"
    )
    parser.add_argument("--base", type=Path, help="checkpoint of the base model (the one that comes along)")
    parser.add_argument("--side", type=int, default=256, help="longer side that the photo is scaled to (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="pictures made at one time (%(default)s)")
    for field in fields(Album):
        default = getattr(usual, field.name)
        parser.add_argument(
            f"--{field.name}", type=type(default), default=default, help=f"{HELP[field.name]} (%(default)s)"
        )


HELP = {
    "count": "pictures",
    "start": "level of 1000 that sampling starts from, noised photo; 0 for pure noise",
    "steps": "sampling steps; 0 for every level",
    "skip": "guidance at every so many steps; 0 for never",
    "last": "guidance at each of so many first, noisiest steps",
    "scale": "of a guidance step",
    "seed": "of the first picture; each has its own",
}


def run(args: argparse.Namespace) -> int:
    """Make the pictures that are missing. Ctrl-C keeps those that are done."""
    if args.batch < 1:
        raise UsageError(f"a batch of {args.batch} was given; choose at least 1")
    album = Album(**{field.name: getattr(args, field.name) for field in fields(Album)})
    denoiser = build(load_base(args.base))
    photo = _scaled(read(args.photo), args.side, denoiser.multiple_of)
    source = {"photo": file_hash(args.photo), "base": file_hash(args.base or SHIPPED_BASE), "side": args.side}
    _claim(args.out, {**source, **asdict(album)})
    wanted = [i for i in range(album.count) if not _path(args.out, i).exists()]
    with tqdm(total=album.count, initial=album.count - len(wanted), unit="picture", disable=None) as progress:
        for number, picture in album_images(denoiser, photo, album, wanted, args.batch):
            write(Photo(picture), _path(args.out, number))
            progress.update()
    print(f"{args.out}: {album.count} pictures of {photo.shape[3]} x {photo.shape[2]} pixels")
    return 0


def is_generated(folder: Path) -> bool:
    """Whether the album in `folder` was made by this command, rather than photographed."""
    return (folder / ALBUM_NAME).exists()


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:02d}.png"


def _scaled(photo: Photo, side: int, multiple: int) -> Tensor:
    """The photo, its longer side at most `side`, its centre cut to multiples: (1, 3, H, W) in [0, 1]."""
    height, width = photo.size
    factor = min(1.0, side / max(height, width))
    pixels = to_8_bits(photo.pixels, halve=False)
    small = np.empty((max(1, round(height * factor)), max(1, round(width * factor)), 3), np.uint8)
    shrink(pixels, small)
    rows, cols = (length - length % multiple for length in small.shape[:2])
    if min(rows, cols) == 0:
        raise UsageError(
            f"the photo of {width} x {height} pixels is {small.shape[1]} x {small.shape[0]} with a longer side of "
            f"{side}; both sides need {multiple} pixels at least: give a larger photo or --side"
        )
    y, x = (small.shape[0] - rows) // 2, (small.shape[1] - cols) // 2
    picture = small[y : y + rows, x : x + cols].astype(np.float32) / np.float32(255)
    return torch.from_numpy(planar(picture))[None]


def _claim(folder: Path, facts: dict[str, Any]) -> None:
    """Note in the folder what the album is made from, or check that it is what was noted."""
    path = folder / ALBUM_NAME
    text = json.dumps(facts, indent=2) + "\n"
    if path.exists():
        noted = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*noted, *facts} - {"count"} if noted.get(name) != facts.get(name))
        if changed:
            raise UsageError(
                f"the album in {folder} was made with another {', '.join(changed)}; use the same or another folder"
            )
    elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is a file or holds other files; give an empty or a new folder for the album")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_output(path, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PhotoWriteError(f"cannot write {path}: {failure_reason(error)}") from error
