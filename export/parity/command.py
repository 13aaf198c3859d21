"""`pocketprior parity record`: what a checkpoint makes of photos, as a file."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.arguments import positive_number, whole_number
from ...core.errors import UsageError
from ...core.photo.listing import released_photos

if TYPE_CHECKING:
    from ..source import Opened

__all__ = ["add_arguments", "run"]

PHOTOS = 4  # of a folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; those about sampling are those of `pocketprior export`."""
    parser.add_argument("checkpoint", type=Path, help="model.safetensors of a finished DTPM, DiffIR or Gen2Res")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="clean photos, or folders of them")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="REFERENCE", help="the file to write (.npz)")
    parser.add_argument("--side", type=whole_number, default=128, help="pixels of the square crops (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(a GPU, if there is one)")
    parser.add_argument("--teacher", type=Path, help="checkpoint that the model is a few-step student of")
    parser.add_argument("--teacher-steps", type=whole_number, help="sampling steps of the teacher (as in 'export')")
    parser.add_argument("--semantic", help="DTPM: its semantic encoder, a model.safetensors or timm:MODEL=FILE")
    parser.add_argument("--gain", type=positive_number, help="share of what the model adds, as in 'export'")
    parser.add_argument("--window", nargs=2, type=int, metavar=("EDGE", "OVERLAP"), help="tiles, as in 'export'")
    parser.add_argument("--tile", type=whole_number, metavar="EDGE", help="the only size of tiles, as in 'export'")
    parser.add_argument("--steps", type=int, help="sampling steps, as in 'export'")
    parser.add_argument("--start", type=int, help="Gen2Res: level to which a photo is noised, as in 'export'")
    parser.add_argument("--sampler", help="Gen2Res: ddim or ancestral, as in 'export'")


def run(args: Namespace) -> int:
    """Write the reference and say what is in it."""
    from ..command import source_of  # the same options make the same model
    from .record import record
    from .shots import settings_of, shots

    if not args.out.parent.is_dir():
        raise UsageError(f"-o '{args.out}' lies in a folder that does not exist; make it first")
    source = source_of(args)
    opened = source.open() if args.tile is None else source.open().in_tiles(args.tile)
    chosen = shots(_photos(args.photos), opened.facts["tasks"][0], args.side, settings_of(opened))
    teacher = None if args.teacher is None else _teacher(args)
    about = record(opened, source.digest(), chosen, args.out, device=args.device, teacher=teacher)
    calls = sum(len(calls) for case in about.cases for calls in case.calls.values())
    size = args.out.stat().st_size / 1e6
    print(f"{args.out}: {size:.1f} MB, {calls} calls of {len(about.cases)} restorations, {about.environment['device']}")
    return 0


def _photos(given: Sequence[Path]) -> list[Path]:
    """Photos as they are, of a folder its first few."""
    return [
        path
        for place in given
        for path in (released_photos(place, split="val")[:PHOTOS] if place.is_dir() else [place])
    ]


def _teacher(args: Namespace) -> Opened:
    """The model that this one learned from, with its own steps."""
    from ..command import source_of

    teacher = argparse.Namespace(**{**vars(args), "checkpoint": args.teacher, "steps": args.teacher_steps})
    return source_of(teacher).open()
