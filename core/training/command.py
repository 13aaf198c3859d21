"""`pocketprior train SYSTEM STAGE`: train one stage of one system."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..degradations import TASKS
from ..errors import UsageError
from ..models import checkpoints
from ..models.dtpm import MOBILE, DtpmConfig
from ..models.semantic import SemanticConfig, SemanticEncoder
from ..photo_list import released_photos
from . import adapters, photos, predictor, prior, semantic
from .loop import Stage, Step, train

__all__ = ["add_arguments", "run"]

SYSTEMS = ("dtpm",)
STAGES = {
    "semantic": semantic.RECIPE,
    "predictor": predictor.RECIPE,
    "prior": prior.RECIPE,
    "adapters": adapters.RECIPE,
}
VAL_SIDE = 256  # held-back photos are judged on centre crops of this size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("system", choices=SYSTEMS, help="which system to train")
    parser.add_argument("stage", choices=STAGES, help="which stage of it")
    parser.add_argument("--data", type=Path, required=True, help="folder of photos, or one with a manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an unfinished run there is continued")
    parser.add_argument("--task", choices=TASKS, default="cleanup", help="what damages the photos (stage II)")
    parser.add_argument("--semantic", type=Path, help="checkpoint of the semantic encoder (prior, adapters)")
    parser.add_argument("--prior", type=Path, help="checkpoint of stage I (adapters)")
    parser.add_argument("--predictor", type=Path, help="checkpoint of the predictor (adapters)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a recipe field")


def run(args: argparse.Namespace) -> int:
    """Train, printing one line per save; Ctrl-C keeps the last save and says how to go on."""
    recipe = STAGES[args.stage].with_settings(args.set)
    steps = train(_stage(args, recipe.crop), recipe, args.out)
    try:
        for step in steps:
            print(_line(step, recipe.steps), flush=True)
    except KeyboardInterrupt:
        print(f"stopped; run the same command to go on from {args.out}/resume.safetensors", file=sys.stderr)
        return 130
    return 0


def _line(step: Step, total: int) -> str:
    rest = "  ".join(f"{name} {value:.4g}" for name, value in step.items() if name != "step")
    return f"{int(step['step'])}/{total}  {rest}"


def _stage(args: argparse.Namespace, crop: int) -> Stage:
    config = MOBILE
    side = config.semantic.size
    structures = args.stage == "prior"
    pool = photos.load(released_photos(args.data, split="train"), minimum=crop, side=side, structures=structures)
    val = photos.load(released_photos(args.data, split="val"), minimum=VAL_SIDE, side=side, structures=structures)
    if args.stage == "semantic":
        return semantic.SemanticStage(config.semantic, pool, val)
    if args.stage == "predictor":
        return predictor.PredictorStage(config, args.task, pool, val)
    encoder = _encoder(args)
    if args.stage == "prior":
        return prior.PriorStage(config, encoder, pool, val)
    stage_one = checkpoints.load(_needed(args.prior, "--prior"), "prior")
    regression = checkpoints.load(_needed(args.predictor, "--predictor"), "predictor")
    built = checkpoints.from_dict(DtpmConfig, stage_one.config)
    return adapters.AdapterStage(built, args.task, encoder, stage_one.tensors, regression.tensors, pool, val)


def _encoder(args: argparse.Namespace) -> SemanticEncoder:
    checkpoint = checkpoints.load(_needed(args.semantic, "--semantic"), "semantic")
    encoder = SemanticEncoder(checkpoints.from_dict(SemanticConfig, checkpoint.config))
    encoder.load_state_dict(checkpoint.part("encoder"))
    return encoder.requires_grad_(False).eval()


def _needed(path: Path | None, option: str) -> Path:
    if path is None:
        raise UsageError(f"this stage starts from an earlier one: give its checkpoint with {option}")
    return path
