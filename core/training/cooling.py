"""Cooling: what a run whose rate stays constant is worth by now.

A copy of its state is trained for a few more steps while the rate falls to zero, and the run itself goes on untouched.
The copy is a run like any other: killed and started again, it goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import TrainingError, UsageError
from .loop import Step, train
from .photos import Data
from .processes import processes
from .recipe import Recipe
from .resume import RECIPE_NAME, STATE_NAME, check_run, claim_run, clear_errors, steps_done
from .stage import Stage

__all__ = ["cool"]


def cool(
    stage: Stage,
    data: Data,
    recipe: Recipe,
    run: Path,
    out: Path,
    steps: int,
    *,
    inputs: Mapping[str, str] | None = None,
    **options: Any,
) -> Generator[Step]:
    """Train a copy of the run `run` for `steps` more steps in the folder `out`, as `train` does with its options.

    recipe: that of the run. The copy sees the samples that come after those the run has seen. An unfinished copy in
    `out` is continued; a finished one is replaced. Raises UsageError when the run has no constant rate or is still
    warming up, TrainingError when it has no state.
    """
    check_run(run, recipe, inputs or {})
    cooled = _cooled(run, recipe, steps)
    group = processes()
    if group.is_main_process and not _is_under_way(out, recipe):
        _copy(run, out, cooled, inputs or {})
    group.wait_for_everyone()
    yield from train(stage, data, type(recipe).load(out / RECIPE_NAME), out, inputs=inputs, **options)


def _cooled(run: Path, recipe: Recipe, steps: int) -> Recipe:
    """The recipe of a copy made now."""
    done = steps_done(run)
    if steps < 1:
        raise UsageError(f"cooling takes at least 1 step, got {steps}")
    if recipe.cooldown:
        raise UsageError(f"{run} ends in a cool-down itself; a run that copies are made of has --set cooldown=0")
    if done < recipe.warmup:
        raise UsageError(f"{run} has done {done} steps and still warms up until step {recipe.warmup}; cool it later")
    return replace(recipe, steps=done + steps, cooldown=steps / (done + steps - recipe.warmup))


def _is_under_way(out: Path, recipe: Recipe) -> bool:
    """Whether `out` holds a copy that has steps left."""
    if not ((out / RECIPE_NAME).exists() and (out / STATE_NAME).exists()):
        return False
    return steps_done(out) < type(recipe).load(out / RECIPE_NAME).steps


def _copy(run: Path, out: Path, recipe: Recipe, inputs: Mapping[str, str]) -> None:
    """Make `out` a run that goes on from the state of `run`; the recipe, written last, makes it one."""
    if out.exists() and not (out / STATE_NAME).exists() and any(out.iterdir()):
        raise TrainingError(f"{out} holds files that are not a cooled copy; choose another folder")
    with clear_errors(out):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        shutil.copyfile(run / STATE_NAME, out / STATE_NAME)
    claim_run(out, recipe, inputs)
