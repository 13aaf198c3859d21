"""`pocketprior bench design`: trained predictors of different designs, measured as they are deployed."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("candidates", nargs="+", type=_named, metavar="NAME=FILE", help="a predictor's checkpoint")
    parser.add_argument("--baseline", type=_named, action="append", default=[], metavar="NAME=FILE.onnx")
    parser.add_argument("--data", type=Path, required=True, help="folder of photos with a manifest.csv: its val split")
    parser.add_argument("--limit", type=int, default=10, help="validation photos, evenly spaced (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each network (%(default)s)")
    parser.add_argument("--tile", type=int, default=512, help="edge of the tiles that are timed (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files of every network there")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the page, such as docs/design-choice.md")


def run(args: argparse.Namespace) -> int:
    """Measure the networks, write the page and its plot."""
    from ..bench.design import design_page

    options = {"limit": args.limit, "rounds": args.rounds, "tile": args.tile, "keep": args.keep}
    design_page(args.candidates, args.baseline, args.data, args.out, **options)
    print(f"{args.out}: {len(args.candidates)} candidates")
    return 0


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(
            f"expected a name and a file, such as A=runs/a/model.safetensors, got '{text}'"
        )
    return name, Path(path)
