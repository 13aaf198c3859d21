"""`pocketprior album PHOTO -o ALBUM`: the base model draws images around one damaged photo."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]

OPTIONS = {  # fields of Album
    "count": (int, 16, "images"),
    "start": (int, 300, "step of 1000 that sampling starts from, at the noised photo; 0 for pure noise"),
    "steps": (int, 0, "sampling steps; 0 for all"),
    "skip": (int, 10, "distance in steps between guidances; 0 for none"),
    "last": (int, 200, "number of the first, noisiest steps that all have guidance"),
    "scale": (float, 0.3, "of a guidance step"),
    "seed": (int, 0, "of the first image; each further one has the next"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("photo", type=Path, help="the damaged photo")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="folder of the album; an unfinished one is continued"
    )
    parser.add_argument("--base", type=Path, help="checkpoint of the base model (default: the included one)")
    parser.add_argument("--side", type=int, default=256, help="longer side that the photo is scaled to (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="images drawn at a time (%(default)s)")
    for name, (kind, default, text) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Draw the images that are missing. Ctrl-C keeps those that are done."""
    from ..gen2res.album import Album, draw_album

    album = Album(**{name: getattr(args, name) for name in OPTIONS})
    draw_album(args.photo, args.out, album, base=args.base, side=args.side, batch=args.batch)
    print(f"{args.out}: {album.count} images")
    return 0
