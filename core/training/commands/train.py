"""`pocketprior train SYSTEM STAGE`: train one stage of one system."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import torch

from ...degradations import TASKS
from ...errors import UnknownNameError
from ...models import checkpoints
from ...models.semantic import open_semantic, semantic_file
from ..data.pairs import Use
from ..data.sources import file_hash, open_data
from ..loop.cooling import cool
from ..loop.loop import train
from ..loop.processes import close
from ..loop.recipe import Recipe, add_options, options
from ..loop.resume import STATE_NAME
from ..stages import SEMANTIC, SYSTEMS, StageModule, stage_module, thumbnail_side

__all__ = ["add_arguments", "run"]

INTERRUPTED = 130


class _LateParser(argparse.ArgumentParser):
    """Declares its arguments when it is about to parse: only the chosen stage is imported."""

    declare: Callable[[argparse.ArgumentParser], None]

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        self.declare(self)
        return super().parse_known_args(*args, **options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    late = type("_StageParser", (_LateParser, type(parser)), {})
    systems = parser.add_subparsers(dest="system", required=True, help="which system to train")
    for system, stages in SYSTEMS.items():
        choices = systems.add_parser(system, allow_abbrev=False).add_subparsers(
            dest="stage", required=True, parser_class=late, help="which stage of it"
        )
        for stage in stages:
            choices.add_parser(stage, allow_abbrev=False).declare = partial(_declare, system, stage)


def _declare(system: str, stage: str, parser: argparse.ArgumentParser) -> None:
    module = stage_module(system, stage)
    parser.add_argument("--data", required=True, help="folder of photos or pairs, or shards (see docs/training.md)")
    parser.add_argument("--val", help="held-back photos, where they are not a part of --data")
    parser.add_argument(
        "--use",
        choices=get_args(Use),
        default="any",
        help="pairs to take: those whose licence allows releasing the weights (default), or research as well",
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder; an unfinished run there is continued")
    for kind in module.EARLIER:
        needed = "of a model that has a semantic code" if kind == SEMANTIC else "that this stage needs"
        parser.add_argument(f"--{kind}", type=Path, required=kind != SEMANTIC, help=f"'{kind}' checkpoint {needed}")
    parser.add_argument("--recipe", type=Path, help="recipe file (.toml or .json) instead of the default recipe")
    if hasattr(module.RECIPE, "model"):
        parser.add_argument("--size", choices=_sizes(system), help="size of the model")
    if hasattr(module.RECIPE, "task"):
        parser.add_argument("--task", help=f"what damages the photos: {', '.join(TASKS)}")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a recipe field")
    add_options(parser)
    parser.add_argument(
        "--from",
        type=Path,
        dest="start",
        metavar="FILE",
        help="start a new run from the weights in a checkpoint of this stage; steps are counted on from there",
    )
    parser.add_argument(
        "--cool",
        type=int,
        metavar="STEPS",
        help="instead: train a copy of the run for so many steps while the rate falls to zero, in a folder of --out",
    )


def _sizes(system: str) -> Mapping[str, Any]:
    return import_module(f"...models.{system}", __package__).CONFIGS


def run(args: argparse.Namespace) -> int:
    """Train, reporting on stderr; Ctrl-C saves and says how to go on."""
    module = stage_module(args.system, args.stage)
    recipe = _recipe(args, module)
    chosen = options(args)
    try:
        given = {kind: getattr(args, kind.replace("-", "_")) for kind in module.EARLIER}
        paths = {kind: path for kind, path in given.items() if path is not None}
        earlier = {kind: _open(kind, str(path)) for kind, path in paths.items()}
        data, inputs = open_data(
            args.data,
            args.val,
            use=args.use,
            seed=recipe.seed,
            crop=recipe.largest_crop,
            side=thumbnail_side(recipe),
            structures=module.STRUCTURES,
        )
        inputs |= {kind: file_hash(semantic_file(str(path))) for kind, path in paths.items()}
        torch.manual_seed(recipe.seed)
        stage = module.build(recipe, earlier, data)
        if args.cool is None:
            start = checkpoints.load(args.start, stage.kind) if args.start else None
            steps = train(stage, data, recipe, args.out, inputs=inputs, start=start, **chosen)
        else:
            steps = cool(stage, data, recipe, args.out, args.cool, inputs=inputs, **chosen)
        for _ in steps:
            pass
    except KeyboardInterrupt:
        if (args.out / STATE_NAME).exists():
            print(f"stopped; run the same command to go on from {args.out / STATE_NAME}", file=sys.stderr)
        return INTERRUPTED
    finally:
        close()
    return 0


def _open(kind: str, source: str) -> checkpoints.Checkpoint:
    return open_semantic(source) if kind == SEMANTIC else checkpoints.load(Path(source), kind)


def _recipe(args: argparse.Namespace, module: StageModule) -> Recipe:
    """The stage's recipe, or that of --recipe, with --size, --task and --set applied in this order."""
    recipe = type(module.RECIPE).load(args.recipe) if args.recipe else module.RECIPE
    changes: dict[str, Any] = {}
    if getattr(args, "size", None):
        changes["model"] = _sizes(args.system)[args.size]
    if getattr(args, "task", None):
        changes["task"] = args.task
    recipe = replace(recipe, **changes).with_settings(args.set)
    if getattr(recipe, "task", None) not in {None, *TASKS}:
        raise UnknownNameError("task", recipe.task, TASKS)  # type: ignore[attr-defined]
    return recipe
