"""The run folder, from which a run resumes: its recipe, the hashes of its inputs and its last state."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from ...errors import INTERRUPTED, TrainingError
from ...files import failure_reason
from .recipe import Recipe

__all__ = [
    "COOLED_PREFIX",
    "RECIPE_NAME",
    "STATE_NAME",
    "check_run",
    "claim_run",
    "clear_errors",
    "cooled_copies",
    "interrupted",
    "is_finished",
    "load_state",
    "save_state",
    "steps_done",
]

RECIPE_NAME = "recipe.toml"
INPUTS_NAME = "inputs.json"
STATE_NAME = "resume.safetensors"
COOLED_PREFIX = "cooled-"  # of the folders of cooled copies in a run folder; the number of steps done follows


def check_run(run: Path, recipe: Recipe, inputs: Mapping[str, str]) -> None:
    """Raise TrainingError, naming the difference, unless `run` is new or was started with this recipe and inputs.

    A run whose rate stays constant (`cooldown` 0) may resume with other `steps`.
    """
    if not (run / RECIPE_NAME).exists():
        if (run / STATE_NAME).exists():
            raise TrainingError(f"{run} holds a state but no {RECIPE_NAME}; use a new folder")
        return
    before = type(recipe).load(run / RECIPE_NAME)
    if before != recipe and (recipe.cooldown or replace(before, steps=recipe.steps) != recipe):
        other = ", ".join(f.name for f in fields(recipe) if getattr(before, f.name) != getattr(recipe, f.name))
        raise TrainingError(
            f"{run} was started with another recipe ({run / RECIPE_NAME} differs in: {other}); resume with that one or "
            "use a new folder"
        )
    noted = json.loads((run / INPUTS_NAME).read_text()) if (run / INPUTS_NAME).exists() else {}
    changed = sorted(name for name in {*noted, *inputs} if noted.get(name) != inputs.get(name))
    if changed:
        raise TrainingError(
            f"{run} was started with other inputs ({', '.join(changed)} changed since); restore them or "
            "use a new folder"
        )


def claim_run(run: Path, recipe: Recipe, inputs: Mapping[str, str]) -> None:
    """Write recipe and inputs into a run folder, the recipe last: its presence marks a run."""
    known = (run / RECIPE_NAME).exists()
    if known and type(recipe).load(run / RECIPE_NAME) == recipe:
        return  # `check_run` found the inputs equal
    with clear_errors(run):
        run.mkdir(parents=True, exist_ok=True)
        if not known:
            (run / INPUTS_NAME).write_text(json.dumps(dict(inputs), indent=2, sort_keys=True) + "\n")
        temporary = run / f".part-{RECIPE_NAME}"
        recipe.save(temporary)
        temporary.replace(run / RECIPE_NAME)


def save_state(run: Path, tensors: Mapping[str, Tensor]) -> None:
    """Replace the state of the run; a failure (disk full) raises TrainingError and keeps the last state."""
    temporary = run / f".{STATE_NAME}.part"
    try:
        with clear_errors(run / STATE_NAME):
            whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
            with temporary.open("wb") as file:
                file.write(safetensors.torch.save(whole))  # save_file leaves a file of another name when killed
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(run / STATE_NAME)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(run: Path) -> dict[str, Tensor]:
    """Load the last saved state. Raises TrainingError if the file is damaged."""
    path = run / STATE_NAME
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise TrainingError(f"{path} is damaged ({error}); use a new folder") from None


def is_finished(run: Path) -> bool:
    """Whether the saved state of a run is that of its last step."""
    if not ((run / RECIPE_NAME).exists() and (run / STATE_NAME).exists()):
        return False
    return steps_done(run) >= tomllib.loads((run / RECIPE_NAME).read_text(encoding="utf-8"))["steps"]


def steps_done(run: Path) -> int:
    """Steps done in the saved state of a run. Raises TrainingError if there is none or it is damaged."""
    path = run / STATE_NAME
    if not path.exists():
        raise TrainingError(f"{run} holds no saved state; train it first")
    try:
        with safetensors.safe_open(path, "pt") as state:
            return int(state.get_tensor("done"))
    except safetensors.SafetensorError as error:
        raise TrainingError(f"{path} is damaged ({error}); use a new folder") from None


def cooled_copies(run: Path) -> list[Path]:
    """The folders of the finished cooled copies of a run, the last one last."""
    return [copy for copy in sorted(run.glob(f"{COOLED_PREFIX}*")) if is_finished(copy)]


@contextmanager
def clear_errors(target: Path) -> Generator[None]:
    """Turn a failure to write `target` into a TrainingError with the reason."""
    try:
        yield
    except OSError as error:
        raise TrainingError(f"cannot write {target}: {failure_reason(error)}; the last saved state is kept") from error


def interrupted(run: Path) -> int:
    """Say on stderr how a run that Ctrl-C stopped is resumed, if it saved a state; returns the exit code."""
    if (run / STATE_NAME).exists():
        print(f"stopped; run the same command to resume from {run / STATE_NAME}", file=sys.stderr)
    return INTERRUPTED
