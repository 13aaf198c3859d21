"""Run a build: its steps in turn, each in a process; finished ones are listed in a file, so that a build resumes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from ...core.errors import INTERRUPTED, PackError, UsageError
from ...core.files import atomic_output
from .build_recipe import BuildStep, check_steps, load_recipe, steps_of

__all__ = ["BUILD_STATE", "Execute", "build", "execute", "planned", "run_steps"]

BUILD_STATE = "build.json"

Execute = Callable[[Sequence[str]], int]  # arguments of `pocketprior` -> exit code


def execute(arguments: Sequence[str]) -> int:
    """Run a command in a process of its own: its memory is freed, and a crash of a library ends only that step."""
    with subprocess.Popen([sys.executable, "-m", "pocketprior", *arguments]) as command:
        while True:
            try:
                return command.wait()
            except KeyboardInterrupt:  # the command gets it too, and saves its state
                _log("interrupted; waiting for the step to save its state")


def planned(recipe: Path, folder: Path | None = None) -> list[BuildStep]:
    """The steps of a build, every option of which has been validated.

    Args:
        recipe: A TOML file.
        folder: Of the build; None for that of the recipe's name, next to it.

    Raises:
        UsageError: The recipe, or an option in it, is wrong.
    """
    read, root = load_recipe(recipe), recipe.resolve().parent
    steps = steps_of(read, (folder or recipe.with_suffix("")).resolve(), root)
    check_steps(read, steps)
    return steps


def build(recipe: Path, folder: Path | None = None) -> int:
    """Run a build from photos to proved packs; the same call resumes one that was stopped.

    Args:
        recipe: A TOML file (docs/build.md).
        folder: Of the build; None for that of the recipe's name, next to it.

    Returns:
        0, or the exit code of the first step that failed.

    Raises:
        UsageError: The recipe is wrong, or a finished step was made by another recipe.
    """
    return run_steps(planned(recipe, folder), (folder or recipe.with_suffix("")).resolve())


def run_steps(steps: Sequence[BuildStep], folder: Path, run: Execute = execute) -> int:
    """Run what is not done yet; the exit code of the first step that fails, 0 if all are done.

    Raises UsageError if a finished step was another call: its result belongs to another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = _known(folder / BUILD_STATE)
    _check(steps, done, folder)
    for number, step in enumerate(steps, start=1):
        title = f"[{number}/{len(steps)}] {step.name}"
        if step.name in done and step.output.exists():
            _log(f"{title}: done before")
            continue
        _forget(steps[number - 1 :], done, folder)
        _clear(step, folder)
        _log(f"{title}: pocketprior {' '.join(step.arguments)}")
        start = monotonic()
        code = run(step.arguments)
        if code:
            again = "" if code == INTERRUPTED else "correct what it reports and "
            _log(f"{title}: ended with {code} after {monotonic() - start:.0f} s; {again}run the same command to resume")
            return code
        if not step.output.exists():
            _log(f"{title}: succeeded but did not write {step.output}; report it, with the recipe")
            return 1
        done[step.name] = step.digest
        _save(folder / BUILD_STATE, done)
        _log(f"{title}: done in {monotonic() - start:.0f} s")
    return 0


def _forget(steps: Sequence[BuildStep], done: dict[str, str], folder: Path) -> None:
    """Strike steps off the finished ones: what comes after a step was made from its older result."""
    known = [step.name for step in steps if step.name in done]
    for name in known:
        del done[name]
    if known:
        _save(folder / BUILD_STATE, done)


def _known(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise PackError(f"{path} cannot be read ({error}); remove it: finished trainings are recognised") from error


def _save(path: Path, done: dict[str, str]) -> None:
    with atomic_output(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")


def _check(steps: Sequence[BuildStep], done: dict[str, str], folder: Path) -> None:
    for step in steps:
        if done.get(step.name, step.digest) != step.digest:
            raise UsageError(
                f"'{step.name}' was run with other settings in {folder}; remove {_place(step)} and {BUILD_STATE}, or "
                "build in another folder"
            )


def _clear(step: BuildStep, folder: Path) -> None:
    """Remove what a killed step left behind, and an older result where the command would refuse to overwrite it."""
    for left in folder.glob(f".{_place(step).name}-*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    _place(step).parent.mkdir(parents=True, exist_ok=True)
    if step.fresh and _place(step).is_dir():
        shutil.rmtree(_place(step))
    elif step.fresh:
        _place(step).unlink(missing_ok=True)


def _place(step: BuildStep) -> Path:
    """The file or folder that a step writes."""
    return step.output.parent if step.output.name in ("manifest.json", "model.safetensors") else step.output


def _log(text: str) -> None:
    print(f"pocketprior: {text}", file=sys.stderr)
