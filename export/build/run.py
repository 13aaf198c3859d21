"""The steps of a build in turn; which are done stands in a file, so that a build that was killed goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from ...core.errors import PackError, UsageError
from ...core.files import atomic_output
from .steps import Step

__all__ = ["STATE", "Execute", "build", "execute"]

STATE = "build.json"
INTERRUPTED = 130

Execute = Callable[[Sequence[str]], int]  # arguments of `pocketprior` -> exit code


def execute(arguments: Sequence[str]) -> int:
    """Run a command in a process of its own: its memory goes back, and a crash of a library ends only that step."""
    with subprocess.Popen([sys.executable, "-m", "pocketprior", *arguments]) as command:
        while True:
            try:
                return command.wait()
            except KeyboardInterrupt:  # the terminal told the command too: it saves what it has, which may take a while
                _log("interrupted; waiting for the step to save its state")


def build(steps: Sequence[Step], folder: Path, run: Execute = execute) -> int:
    """Run what is not done yet; the exit code of the first step that fails, 0 where all are done.

    Raises UsageError where a step that is done was another call: its result belongs to another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = _known(folder / STATE)
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
            again = "the same command goes on there" if code == INTERRUPTED else "mend what it says and run it again"
            _log(f"{title}: ended with {code} after {monotonic() - start:.0f} s; {again}")
            return code
        if not step.output.exists():
            _log(f"{title}: ended well but left no {step.output}; report it, with the recipe")
            return 1
        done[step.name] = step.digest
        _save(folder / STATE, done)
        _log(f"{title}: done in {monotonic() - start:.0f} s")
    return 0


def _forget(steps: Sequence[Step], done: dict[str, str], folder: Path) -> None:
    """Steps that are to be done again: what comes after one was made from its older result."""
    known = [step.name for step in steps if step.name in done]
    for name in known:
        del done[name]
    if known:
        _save(folder / STATE, done)


def _known(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise PackError(f"{path} cannot be read ({error}); remove it: finished trainings are found again") from error


def _save(path: Path, done: dict[str, str]) -> None:
    with atomic_output(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")


def _check(steps: Sequence[Step], done: dict[str, str], folder: Path) -> None:
    for step in steps:
        if done.get(step.name, step.digest) != step.digest:
            raise UsageError(
                f"'{step.name}' was done with other settings in {folder}; remove {_place(step)} and {STATE}, or build "
                "in another folder"
            )


def _clear(step: Step, folder: Path) -> None:
    """Take away what a killed step left behind, and an older result where the command would refuse to write."""
    for left in folder.glob(f".{_place(step).name}-*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    _place(step).parent.mkdir(parents=True, exist_ok=True)
    if step.fresh and _place(step).is_dir():
        shutil.rmtree(_place(step))
    elif step.fresh:
        _place(step).unlink(missing_ok=True)


def _place(step: Step) -> Path:
    """The file or the folder that a step makes."""
    return step.output.parent if step.output.name in ("manifest.json", "model.safetensors") else step.output


def _log(text: str) -> None:
    print(f"pocketprior: {text}", file=sys.stderr)
