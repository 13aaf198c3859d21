"""`pocketprior distill`: a few-step student of a trained model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...core.degradations import TASKS
from ...core.training.commands.train import add_run_arguments
from .. import DISTILL_METHODS

__all__ = ["add_arguments", "run"]

TEXTURE_LOST = "texture is being lost: PSNR is above the teacher's, NIQE or SWD is worse"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("teacher", type=Path, help="a model.safetensors, or the run folder that holds one")
    parser.add_argument("--method", required=True, help=f"one of: {', '.join(DISTILL_METHODS)}")
    parser.add_argument("--steps", type=int, help="sampling steps of the student, such as 4, 2 or 1")
    parser.add_argument(
        "--from", type=Path, dest="start", help="student to start from instead of the teacher's weights"
    )
    parser.add_argument("--semantic", help="DTPM: its semantic encoder, a model.safetensors or timm:MODEL=FILE")
    parser.add_argument("--task", choices=TASKS, help="what damages the photos (default: the teacher's task)")
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Distil, reporting on stderr, also when texture is being lost. Ctrl-C saves and says how to resume."""
    from ...core.training.loop.run_folder import interrupted
    from ..distillation import LOST, distill, distill_recipe

    recipe = distill_recipe(args.method, args.recipe, sampling_steps=args.steps, task=args.task, settings=args.set)
    names = ("teacher", "method", "data", "out", "start", "semantic", "val", "use", "workers", "minutes", "threads")
    try:
        for saved in distill(recipe, **{name: getattr(args, name) for name in names}):
            if saved.figures.get(LOST):
                print(f"step {saved.step}: {TEXTURE_LOST}", file=sys.stderr)
    except KeyboardInterrupt:
        return interrupted(args.out)
    return 0
