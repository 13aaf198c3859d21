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

from ...errors import UsageError
from ..data.photos import TrainingData
from .loop import SavedStep, train
from .processes import processes
from .recipe import Recipe
from .resume import RECIPE_NAME, STATE_NAME, check_run, claim_run, clear_errors, is_finished, steps_done
from .stage import TrainingStage

__all__ = ["cool", "cooled_copies"]

PREFIX = "cooled-"  # of the folders of copies; the number of steps that the run had done follows


def cool(
    stage: TrainingStage,
    data: TrainingData,
    recipe: Recipe,
    run: Path,
    steps: int,
    *,
    inputs: Mapping[str, str] | None = None,
    **options: Any,
) -> Generator[SavedStep]:
    """Train a copy of the run `run` for `steps` more steps, as `train` does with its options.

    recipe: that of the run. The copy lies in the run's folder under the number of steps that the run has done, and
    sees the samples that come after those the run has seen. Raises UsageError when the rate of the run is not constant
    or still rises, TrainingError when the run has no state.
    """
    check_run(run, recipe, inputs or {})
    done = steps_done(run)
    if steps < 1:
        raise UsageError(f"cooling takes at least 1 step, got {steps}")
    if recipe.cooldown:
        raise UsageError(f"{run} ends in a cool-down itself; a run that copies are made of has --set cooldown=0")
    if done < recipe.warmup:
        raise UsageError(f"{run} has done {done} steps and still warms up until step {recipe.warmup}; cool it later")
    out = run / f"{PREFIX}{done:08d}"
    group = processes()
    if group.is_main_process and not (out / RECIPE_NAME).exists():
        with clear_errors(out):
            out.mkdir(exist_ok=True)
            shutil.copyfile(run / STATE_NAME, out / STATE_NAME)
        end = steps_done(out) + steps  # the run may have saved since
        claim_run(out, replace(recipe, steps=end, cooldown=steps / (end - recipe.warmup)), inputs or {})
    group.wait_for_everyone()
    yield from train(stage, data, type(recipe).load(out / RECIPE_NAME), out, inputs=inputs, **options)


def cooled_copies(run: Path) -> list[Path]:
    """The folders of the finished copies of a run, the last one last."""
    return [copy for copy in sorted(run.glob(f"{PREFIX}*")) if is_finished(copy)]
