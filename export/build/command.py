"""`pocketprior build RECIPE`: from photos to proved packs."""

from __future__ import annotations

import argparse
from pathlib import Path

from .recipe import load
from .run import build
from .steps import steps_of

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file (docs/build.md)")
    parser.add_argument("-o", "--out", type=Path, help="folder of the build (that of the recipe's name, beside it)")
    parser.add_argument("--plan", action="store_true", help="say what would be run, and run nothing")


def run(args: argparse.Namespace) -> int:
    """Run the steps that are not done yet; the exit code of the one that fails."""
    folder = (args.out or args.recipe.with_suffix("")).resolve()
    steps = steps_of(load(args.recipe), folder, args.recipe.resolve().parent)
    if args.plan:
        print("\n".join(f"pocketprior {' '.join(step.arguments)}" for step in steps))
        return 0
    code = build(steps, folder)
    if not code:
        print("\n".join(str(step.output) for step in steps if step.output.name == "manifest.json"))
    return code
