"""`pocketprior parity record`: what a checkpoint makes of photos, as a file."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UsageError
from ...core.photo.listing import released_photos
from ..command import source_of  # the same options make the same model
from ..source import Opened
from .record import record
from .shots import settings_of, shots

__all__ = ["run"]

PHOTOS = 4  # of a folder


def run(args: Namespace) -> int:
    """Write the recording and say what is in it."""
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
    teacher = argparse.Namespace(**{**vars(args), "checkpoint": args.teacher, "steps": args.teacher_steps})
    return source_of(teacher).open()
