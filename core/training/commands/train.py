"""`pocketprior train SYSTEM STAGE`: train one stage of one system."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from ...degradations import TASKS
from ..data.pairs import PairUse
from ..stages import MODEL_SIZES, SEMANTIC, SYSTEMS, StageEntry

__all__ = ["add_arguments", "add_run_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    systems = parser.add_subparsers(dest="system", required=True, help="which system to train")
    for system, stages in SYSTEMS.items():
        choices = systems.add_parser(system, allow_abbrev=False).add_subparsers(
            dest="stage", required=True, help="which stage of it"
        )
        for stage, entry in stages.items():
            _declare(choices.add_parser(stage, allow_abbrev=False), system, entry)


def _declare(parser: argparse.ArgumentParser, system: str, entry: StageEntry) -> None:
    add_run_arguments(parser)
    add = parser.add_argument
    for kind in entry.earlier:
        needed = "of a model that has a semantic code" if kind == SEMANTIC else "that this stage starts from"
        add(f"--{kind}", type=Path, required=kind != SEMANTIC, help=f"'{kind}' checkpoint {needed}")
    if entry.sized:
        add("--size", choices=MODEL_SIZES[system], help="size of the model")
    if entry.tasked:
        add("--task", help=f"the damage to restore: {', '.join(TASKS)}")
    help_from = "start a new run from the weights of this checkpoint of the stage; it counts steps on from there"
    add("--from", type=Path, dest="start", metavar="FILE", help=help_from)
    help_cool = "instead: train a copy of the run for STEPS steps while its rate falls to zero, in a folder of --out"
    add("--cool", type=int, metavar="STEPS", help=help_cool)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that trains takes: the photos, the run folder, the recipe, the use of the machine."""
    add = parser.add_argument
    add("--data", required=True, help="folder of photos or pairs, or shards (see docs/training.md)")
    add("--val", help="held-back photos, if they are not a part of --data")
    help_use = (
        "pairs to train on: those whose licence allows releasing the weights (default), or research pairs as well"
    )
    add("--use", choices=get_args(PairUse), default="any", help=help_use)
    add("--out", type=Path, required=True, help="run folder; an unfinished run in it is continued")
    add("--recipe", type=Path, help="recipe file (.toml or .json) instead of the default recipe")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change a recipe field")
    add("--workers", type=int, default=1, help="processes that draw batches (default 1)")
    add("--threads", default="auto", help="number of threads; 'auto' (default): one per idle core")
    add("--minutes", type=float, help="save and stop after this time; the same command resumes")


def run(args: argparse.Namespace) -> int:
    """Train, reporting on stderr; Ctrl-C saves and says how to resume."""
    from ..loop.run_folder import interrupted
    from ..runs import read_recipe, train

    given = {kind: getattr(args, kind.replace("-", "_")) for kind in SYSTEMS[args.system][args.stage].earlier}
    earlier = {kind: path for kind, path in given.items() if path is not None}
    size, task = getattr(args, "size", None), getattr(args, "task", None)
    recipe = read_recipe(args.system, args.stage, args.recipe, size=size, task=task, settings=args.set)
    names = ("system", "stage", "data", "out", "val", "use", "start", "workers", "minutes", "threads")
    options = {name: getattr(args, name) for name in names}
    try:
        for _ in train(recipe, earlier=earlier, cool_steps=args.cool, **options):
            pass
    except KeyboardInterrupt:
        return interrupted(args.out)
    return 0
