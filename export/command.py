"""`pocketprior export`: a trained checkpoint becomes a pack."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core.photo_list import released_photos
from .pack import PRECISIONS, Sources, write_pack

__all__ = ["add_arguments", "run"]

PHOTOS = 24  # held-back photos that calibrate int8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", type=Path, help="model.safetensors of a DTPM run (train dtpm adapters)")
    parser.add_argument("--semantic", type=Path, required=True, help="model.safetensors of its semantic encoder")
    parser.add_argument("--data", type=Path, required=True, help="photos for calibration and the golden restoration")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the pack; must not exist")
    parser.add_argument("--name", default="dtpm-mobile-cleanup", help="name of the pack")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps (default: %(default)s)")
    parser.add_argument("--gain", type=float, default=0.5, help="texture gain at strength 1 (default: %(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the graphs (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write the pack and say what is in it."""
    manifest = write_pack(
        Sources(args.checkpoint, args.semantic),
        args.out,
        name=args.name,
        steps=args.steps,
        gain=args.gain,
        precision=args.precision,
        photos=released_photos(args.data, split="val")[:PHOTOS],
    )
    golden = manifest.golden["photo"]
    size = sum(file.bytes for file in manifest.files())
    print(f"{args.out}: {size / 1e6:.2f} MB, {golden.reason}")
    return 0
