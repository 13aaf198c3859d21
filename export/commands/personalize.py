"""`pocketprior personalize ALBUM -o PACK`: a pack that knows the subject of an album."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import INTERRUPTED, UsageError
from ...core.pack.systems import SYSTEMS
from . import given

if TYPE_CHECKING:
    from ..personal import PersonalizeOptions

__all__ = ["add_arguments", "run"]

# Fields of the album: default and help.
_ALBUM: dict[str, tuple[int | float, str]] = {
    "count": (16, "images"),
    "start": (300, "level of 1000 that sampling starts from, the photo noised to it; 0 for pure noise"),
    "steps": (0, "sampling steps; 0 for every level"),
    "skip": (10, "guidance at every so many steps; 0 for never"),
    "last": (200, "guidance at each of so many first, noisiest steps"),
    "scale": (0.3, "of a guidance step"),
    "seed": (0, "of the first image; each has its own"),
    "side": (256, "longer side that the photo is scaled to, pixels"),
    "batch": (4, "images made at one time"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("album", type=Path, nargs="?", help="folder of clean photos (with --around: OUT.album)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the pack; must not exist")
    parser.add_argument("--around", type=Path, metavar="PHOTO", help="generate the album around this damaged photo")
    parser.add_argument("--run", type=Path, help="run folder of the training (OUT.run); an unfinished one is resumed")
    parser.add_argument("--base", type=Path, help="checkpoint of the base model (default: the one of the package)")
    parser.add_argument("--method", choices=("lora", "full"), default="lora", help="what is trained (%(default)s)")
    parser.add_argument("--steps", type=int, help="of the training (1000)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change another recipe field")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw batches (%(default)s)")
    parser.add_argument("--name", default="", help="name of the pack (default: that of its folder)")
    parser.add_argument("--level", type=int, default=0, help="K of 1000 to which photos are noised at least (0: none)")
    parser.add_argument(
        "--sampler", choices=SYSTEMS["gen2res"].samplers, default="ddim", help="of the restoration (%(default)s)"
    )
    parser.add_argument("--sampling-steps", type=int, default=8, metavar="N", help="of the restoration (%(default)s)")
    group = parser.add_argument_group("the generated album (--around)")
    for name, (default, text) in _ALBUM.items():
        group.add_argument(f"--album-{name}", type=type(default), default=default, help=f"{text} (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Train and write the pack; Ctrl-C keeps the progress, and the same command resumes."""
    from ..personal import personalize

    if args.album is None and args.around is None:
        raise UsageError("no album was given; give a folder of clean photos, or a damaged photo with --around")
    album = args.album or args.out.with_name(f"{args.out.name}.album")
    try:
        manifest = personalize(album, args.out, _options(args))
    except KeyboardInterrupt:
        print("pocketprior: stopped; run the same command to resume", file=sys.stderr)
        return INTERRUPTED
    print(f"{args.out}: {sum(file.bytes for file in manifest.files()) / 1e6:.2f} MB, {manifest.golden['photo'].reason}")
    return 0


def _options(args: argparse.Namespace) -> PersonalizeOptions:
    from ...core.training.gen2res.album import Album
    from ..personal import PersonalizeOptions

    defaults = PersonalizeOptions()
    recipe = replace(defaults.recipe, method=args.method, steps=args.steps or defaults.recipe.steps)
    generated = Album(**{name: getattr(args, f"album_{name}") for name in _ALBUM if name not in ("side", "batch")})
    fields = given(PersonalizeOptions, args) | {"recipe": recipe.with_settings(args.set), "generated": generated}
    return PersonalizeOptions(**fields)
