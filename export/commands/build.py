"""`pocketprior build RECIPE`: from photos to proved packs."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file (docs/build.md)")
    parser.add_argument(
        "-o", "--out", type=Path, help="folder of the build (default: that of the recipe's name, next to it)"
    )
    parser.add_argument("--plan", action="store_true", help="validate the recipe and print the steps, without running")


def run(args: argparse.Namespace) -> int:
    """Run the steps that are not done yet; the exit code of the one that fails."""
    from ..build_recipe import build, planned

    steps = planned(args.recipe, args.out)
    if args.plan:
        print("\n".join(f"pocketprior {' '.join(step.arguments)}" for step in steps))
        return 0
    code = build(args.recipe, args.out)
    if not code:
        print("\n".join(str(step.output) for step in steps if step.output.name == "manifest.json"))
    return code
