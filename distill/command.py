"""`pocketprior distill`: a few-step student of a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch

from ..core.degradations import TASKS
from ..core.errors import UnknownNameError, UsageError
from ..core.models import checkpoints
from ..core.models.semantic import open_semantic, semantic_file
from ..core.training.commands.train import add_run_arguments
from ..core.training.data.photos import TrainingData
from ..core.training.data.sources import file_hash, open_data
from ..core.training.loop.loop import SavedStep, train
from ..core.training.loop.processes import close, processes
from ..core.training.loop.resume import STATE_NAME
from ..core.training.runs import run_options
from .diffir import DiffirSystem
from .dtpm import DtpmSystem
from .gates import LOST, TEXTURE_LOST
from .gen2res import Gen2ResSystem
from .recipe import DistillRecipe
from .stage import DistillStage
from .system import System

__all__ = ["METHODS", "Method", "add_arguments", "method_of", "open_system", "run"]

METHODS = ("trajectory", "progressive", "unrolled", "consistency", "one_step", "quantized")
KINDS = ("dtpm", "gen2res", "diffir")
MODEL = "model.safetensors"
INTERRUPTED = 130


class Method(Protocol):
    """What the module of a method offers."""

    RECIPE: Any  # the default, a DistillRecipe
    SYSTEMS: tuple[str, ...]  # that it can distil
    build: Callable[[Any, System, TrainingData, Path, torch.device], DistillStage]


def method_of(name: str) -> Method:
    """The module of a method, "one-step" or "one_step". Raises UnknownNameError."""
    plain = name.replace("-", "_")
    if plain not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return import_module(f".{plain}", __package__)  # type: ignore[return-value]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("teacher", type=Path, help="a model.safetensors, or the run folder that holds one")
    parser.add_argument(
        "--from", type=Path, dest="start", help="student to go on from, instead of the teacher's weights"
    )
    parser.add_argument("--method", required=True, help=f"one of: {', '.join(METHODS)}")
    parser.add_argument("--steps", type=int, help="sampling steps of the student, such as 4, 2 or 1")
    parser.add_argument("--semantic", help="DTPM: its semantic encoder, a model.safetensors or timm:MODEL=FILE")
    parser.add_argument("--task", choices=TASKS, help="what damages the photos (that of the teacher)")
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Distil, reporting on stderr; says when texture is being lost. Ctrl-C saves and says how to go on."""
    method = method_of(args.method)
    recipe = _recipe(args, method)
    chosen = run_options(args.workers, args.minutes, args.threads, args.out)
    teacher = _file(args.teacher)
    try:
        torch.manual_seed(recipe.seed)
        system = open_system(teacher, args.semantic, recipe)
        if system.kind not in method.SYSTEMS:
            raise UsageError(f"'{args.method}' distils {' and '.join(method.SYSTEMS)}, {teacher} holds a {system.kind}")
        data, inputs = open_data(
            args.data,
            args.val,
            use=args.use,
            seed=recipe.seed,
            crop=recipe.largest_crop,
            side=system.thumbnail_side,
            structures=False,
        )
        inputs |= {"teacher": system.source}
        if args.start:
            inputs["from"] = file_hash(_file(args.start))
        if args.semantic:
            inputs["semantic"] = file_hash(semantic_file(args.semantic))
        stage = method.build(recipe, system, data, args.out, processes().device)
        if args.start:
            checkpoints.load(_file(args.start), system.kind).fill(stage.model)
        for step in train(stage, data, recipe, args.out, inputs=inputs, **chosen):
            _judge(step)
    except KeyboardInterrupt:
        if (args.out / STATE_NAME).exists():
            print(f"stopped; run the same command to go on from {args.out / STATE_NAME}", file=sys.stderr)
        return INTERRUPTED
    finally:
        close()
    return 0


def _file(place: Path) -> Path:
    """The checkpoint in a run folder, or the file itself."""
    return place / MODEL if place.is_dir() else place


def _judge(step: SavedStep) -> None:
    if step.figures.get(LOST):
        print(f"step {step.step}: {TEXTURE_LOST}", file=sys.stderr)


def _recipe(args: argparse.Namespace, method: Method) -> DistillRecipe:
    """The method's recipe, or that of --recipe, with --steps, --task and --set applied in this order."""
    recipe: DistillRecipe = type(method.RECIPE).load(args.recipe) if args.recipe else method.RECIPE
    changes = {"sampling_steps": args.steps, "task": args.task}
    return replace(recipe, **{k: v for k, v in changes.items() if v is not None}).with_settings(args.set)


def open_system(teacher: Path, semantic: str | None, recipe: DistillRecipe) -> System:
    """The system of the checkpoint `teacher`, for this recipe.

    Raises CheckpointError, UsageError without its semantic encoder or for crops that it cannot take.
    """
    system = _opened(checkpoints.load(teacher, *KINDS), semantic, recipe, file_hash(teacher))
    recipe.check_crop(system.multiple_of)
    return system


def _opened(checkpoint: checkpoints.Checkpoint, semantic: str | None, recipe: DistillRecipe, source: str) -> System:
    if checkpoint.kind == "dtpm":
        return DtpmSystem(checkpoint, open_semantic(semantic) if semantic else None, recipe, source)
    if checkpoint.kind == "gen2res":
        return Gen2ResSystem(checkpoint, recipe, source)
    return DiffirSystem(checkpoint, recipe, source)
