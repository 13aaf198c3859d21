"""`pocketprior distill`: a few-step student of a trained model."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ...core.cli import INTERRUPTED
from ...core.degradations import TASKS
from ...core.training.data.pairs import Use
from .. import DISTILL_METHODS

if TYPE_CHECKING:
    from ..stage import DistillRecipe

__all__ = ["add_arguments", "run"]

TEXTURE_LOST = "texture is being lost: PSNR is above the teacher's, NIQE or SWD is worse"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from ...core.training.loop.recipe import add_options

    parser.add_argument("teacher", type=Path, help="a model.safetensors, or the run folder that holds one")
    parser.add_argument(
        "--from", type=Path, dest="start", help="student to start from, instead of the teacher's weights"
    )
    parser.add_argument("--method", required=True, help=f"one of: {', '.join(DISTILL_METHODS)}")
    parser.add_argument("--steps", type=int, help="sampling steps of the student, such as 4, 2 or 1")
    parser.add_argument("--data", required=True, help="folder of photos or pairs, or shards (see docs/training.md)")
    parser.add_argument("--val", help="held-back photos, unless they are part of --data")
    parser.add_argument("--use", choices=get_args(Use), default="any", help="pairs to take, as in `train`")
    parser.add_argument("--semantic", help="DTPM: its semantic encoder, a model.safetensors or timm:MODEL=FILE")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an unfinished run there is continued")
    parser.add_argument("--recipe", type=Path, help="recipe file (.toml or .json) instead of the method's default")
    parser.add_argument("--task", choices=TASKS, help="what damages the photos (default: the teacher's task)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a recipe field")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Distil, reporting on stderr, also when texture is being lost. Ctrl-C saves and says how to resume."""
    from ...core.training.loop.processes import close
    from ...core.training.loop.recipe import options
    from ...core.training.loop.resume import STATE_NAME
    from ..methods import distill
    from ..stage import LOST

    places = {name: getattr(args, name) for name in ("start", "semantic", "val", "use")}
    recipe, machine = _recipe(args), options(args)
    try:
        for figures in distill(args.teacher, args.method, args.data, args.out, recipe=recipe, **places, **machine):
            if figures.get(LOST):
                print(f"step {figures['step']:g}: {TEXTURE_LOST}", file=sys.stderr)
    except KeyboardInterrupt:
        if (args.out / STATE_NAME).exists():
            print(f"stopped; run the same command to resume from {args.out / STATE_NAME}", file=sys.stderr)
        return INTERRUPTED
    finally:
        close()
    return 0


def _recipe(args: argparse.Namespace) -> DistillRecipe:
    """The method's recipe, or that of --recipe, with --steps, --task and --set applied in this order."""
    from ..methods import method_of

    usual = method_of(args.method).recipe
    recipe = type(usual).load(args.recipe) if args.recipe else usual
    changes = {"sampling_steps": args.steps, "task": args.task}
    return replace(recipe, **{k: v for k, v in changes.items() if v is not None}).with_settings(args.set)
