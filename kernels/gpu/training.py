"""A training run goes on for the time that is left, from what `pack` laid out; what it leaves comes back in pieces."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open

from ...core.models import checkpoints
from ...core.training.data.photos import TrainingData, gather
from ...core.training.loop.loop import train
from ...core.training.loop.recipe import Recipe
from ...core.training.loop.resume import STATE_NAME
from ...core.training.loop.stage import TrainingStage
from ...core.training.stages import find_stage, thumbnail_side
from .carried import NAME, RUN, TRAIN, VAL, Packed, photos, unpacked
from .pieces import cut
from .stage import Item, LeftOutError, Setup

__all__ = ["KEY", "LEAST_S", "PIECES", "ROW", "Trained", "items"]

LEAST_S = 30.0
RESERVE_S = 10.0  # for saving the last state and cutting it into pieces
PIECES = "training-"  # they are training-RUN-0.tar, ...
WORKERS = 8  # processes that draw batches
GIVEN_BACK = ("recipe.toml", "inputs.json", "log.csv", "model.safetensors", STATE_NAME)


@dataclass(frozen=True)
class Trained:
    """One saved point of the run."""

    run: str
    system: str
    stage: str
    step: int
    steps: int  # of the whole run
    seconds: float  # since the start here
    figures: Mapping[str, float]


ROW = Trained
KEY = ("run", "step")


def items(setup: Setup) -> Iterator[Item]:
    """The one run that was packed."""
    yield Item("training", partial(_train, setup))


def _train(setup: Setup) -> Iterator[Trained]:
    if not (setup.carried / NAME).exists():
        raise LeftOutError(f"no run was carried here in {setup.carried}; scripts/gpu --pack lays one out")
    packed = unpacked(setup.carried)
    recipe = type(find_stage(packed.system, packed.stage).load().recipe).load(setup.carried / RUN / "recipe.toml")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(shutil.copytree(setup.carried / RUN, Path(scratch) / packed.run))
        try:
            for done, figures in _steps(setup, packed, recipe, run):
                passed = round(time.monotonic() - start, 1)
                yield Trained(packed.run, packed.system, packed.stage, done, recipe.steps, passed, figures)
        finally:  # also what a run had saved before it failed
            cut([run / name for name in GIVEN_BACK if (run / name).exists()], setup.out, PIECES + packed.run)


def _steps(setup: Setup, packed: Packed, recipe: Recipe, run: Path) -> Iterator[tuple[int, Mapping[str, float]]]:
    """Steps done and figures of each saved point; when the time is over the state is saved as after a Ctrl-C."""
    stage, data = _stage_and_data(setup, packed, recipe)
    inputs = {name: packed.files[file] for name, file in {"data": TRAIN, "val": VAL, **packed.earlier}.items()}
    workers = 0 if setup.dry_run else WORKERS
    stop = threading.Timer(setup.left_s() - RESERVE_S, os.kill, (os.getpid(), signal.SIGINT))
    stop.start()
    done = 0
    try:
        for step in train(stage, data, recipe, run, inputs=inputs, workers=workers, board=False):
            done = int(step.pop("step"))
            yield done, step
    except KeyboardInterrupt:
        stopped = _done(run / STATE_NAME)
        if stopped > done:
            yield stopped, {}
    finally:
        stop.cancel()


def _done(state: Path) -> int:
    if not state.exists():
        return 0
    with safe_open(state, "pt") as file:
        return int(file.get_tensor("done"))


def _stage_and_data(setup: Setup, packed: Packed, recipe: Recipe) -> tuple[TrainingStage, TrainingData]:
    entry = find_stage(packed.system, packed.stage)
    train_pool, val_pool = (
        gather(
            photos(setup.carried / file),
            minimum=recipe.crop,
            side=thumbnail_side(recipe),
            structures=entry.structures,
        )
        for file in (TRAIN, VAL)
    )
    earlier = {kind: checkpoints.load(setup.carried / file, kind) for kind, file in packed.earlier.items()}
    torch.manual_seed(recipe.seed)
    data = TrainingData(train_pool, val_pool)
    return entry.load().build(recipe, earlier, data), data
