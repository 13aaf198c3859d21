"""The folder of a run, and what it reports.

A run resumes from its recipe, the hashes of its inputs and its last state. It reports to log.csv, TensorBoard, images
and stderr: a bar of tqdm on a terminal, lines elsewhere.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
import time
import tomllib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ...arrays import to_image
from ...errors import INTERRUPTED, MissingExtraError, TrainingError
from ...files import failure_reason
from .recipe import Recipe

__all__ = [
    "COOLED_PREFIX",
    "RECIPE_NAME",
    "STATE_NAME",
    "Report",
    "bar",
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
LOG_NAME = "log.csv"
COOLED_PREFIX = "cooled-"  # of the folders of cooled copies in a run folder; the number of steps done follows
LINE_EVERY = 10.0  # seconds between lines if no terminal shows a bar


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
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with clear_errors(run / STATE_NAME), _replacing(run / STATE_NAME) as temporary, temporary.open("wb") as file:
        file.write(safetensors.torch.save(whole))  # save_file leaves a file of another name when killed
        file.flush()
        os.fsync(file.fileno())


def load_state(run: Path) -> dict[str, Tensor]:
    """Load the last saved state. Raises TrainingError if the file is damaged."""
    with _whole_file(run / STATE_NAME):
        return safetensors.torch.load_file(run / STATE_NAME)


def steps_done(run: Path) -> int:
    """Steps done in the saved state of a run. Raises TrainingError if there is none or it is damaged."""
    if not (run / STATE_NAME).exists():
        raise TrainingError(f"{run} holds no saved state; train it first")
    with _whole_file(run / STATE_NAME), safetensors.safe_open(run / STATE_NAME, "pt") as state:
        return int(state.get_tensor("done"))


def is_finished(run: Path) -> bool:
    """Whether the saved state of a run is that of its last step."""
    if not ((run / RECIPE_NAME).exists() and (run / STATE_NAME).exists()):
        return False
    return steps_done(run) >= tomllib.loads((run / RECIPE_NAME).read_text(encoding="utf-8"))["steps"]


def cooled_copies(run: Path) -> list[Path]:
    """The folders of the finished cooled copies of a run, the last one last."""
    return [copy for copy in sorted(run.glob(f"{COOLED_PREFIX}*")) if is_finished(copy)]


@contextmanager
def _whole_file(path: Path) -> Generator[None]:
    try:
        yield
    except safetensors.SafetensorError as error:
        raise TrainingError(f"{path} is damaged ({error}); use a new folder") from None


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


class _Span(NamedTuple):
    """The moment from which speed is counted."""

    step: int
    since: float
    waited: float = 0.0  # seconds for data until then


class Report:
    """The log, speed and progress of a run in which step `start` was the last one saved; main process only."""

    def __init__(self, run: Path, start: int, recipe: Recipe) -> None:
        self.run, self.recipe = run, recipe
        self.end = math.inf  # the `time.monotonic` at which the run stops
        with clear_errors(run):
            self._board = _board(run, start)
            self._drop_lines_after(start)
        self._bar = bar(None, "steps", "step", total=recipe.steps, initial=start)
        self._lines = not sys.stderr.isatty()
        self._shown = self._saved = _Span(start, time.monotonic())

    def begin(self, line: str, end: float) -> None:
        """Print a line about the training that begins now, until `end` at most; speed is counted from here."""
        self.end = end
        self.say(line)
        self._shown = self._saved = self._saved._replace(since=time.monotonic())

    def say(self, line: str) -> None:
        """Print a line."""
        self._bar.write(line, file=sys.stderr)

    def step(self) -> None:
        """One more step is done."""
        self._bar.update()

    def show(self, done: int, loss: float, waited: float) -> None:
        """Show the progress on the bar, or every ten seconds in a line. waited: seconds for data so far."""
        span, now = self._shown, time.monotonic()
        if self._lines and now - span.since < LINE_EVERY:
            return
        data = (waited - span.waited) / max(now - span.since, 1e-9)
        text = f"loss {loss:.4g}  {self._speed(span, done, now)}  data {data:.0%}"
        if self._lines:
            self.say(f"{done}/{self.recipe.steps}  {self.recipe.megapixels(done):.4g} Mpx  {text}")
        else:
            self._bar.set_postfix_str(text, refresh=False)
        if now - span.since >= LINE_EVERY:
            self._shown = _Span(done, now, waited)

    def save(self, done: int, figures: Mapping[str, float], images: Mapping[str, Tensor]) -> None:
        """Log the figures of a save and its images, each (3, H, W) in [0, 1]; print them, the speed and the time left.

        The speed is that since the last save.
        """
        with (self.run / LOG_NAME).open("a", newline="") as file:
            log = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                log.writerow(["step", *figures])
            log.writerow([done, *(f"{value:.6g}" for value in figures.values())])
        for name, value in figures.items():
            self._board.add_scalar(name, value, done)
        for name, image in images.items():
            pixels = to_image(np.ascontiguousarray(image.detach().float().cpu().numpy()[None]), np.uint8)
            self._board.add_image(name, pixels, done, dataformats="HWC")
            with _replacing(self.run / "pictures" / f"{name}-{done:07d}.png") as temporary:
                Image.fromarray(pixels).save(temporary, "PNG")
        self._board.flush()
        now = time.monotonic()
        rest = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.say(f"{done}/{self.recipe.steps}  {rest}  {self._speed(self._saved, done, now)}")
        self._saved = _Span(done, now)

    def close(self) -> None:
        """Leave the terminal tidy, and finish the TensorBoard file."""
        self._bar.close()
        self._board.close()

    def _speed(self, span: _Span, done: int, now: float) -> str:
        seen = self.recipe.megapixels(done)
        speed = (seen - self.recipe.megapixels(span.step)) / max(now - span.since, 1e-9)
        left = (self.recipe.megapixels(self.recipe.steps) - seen) / max(speed, 1e-9)
        return f"{speed:.3g} Mpx/s  {_duration(min(left, max(0.0, self.end - now)))} left"

    def _drop_lines_after(self, start: int) -> None:
        """A killed run may have written a line, or a part of one, after its last saved state."""
        path = self.run / LOG_NAME
        if not path.exists():
            return
        header, *rows = path.read_text().splitlines(keepends=True) or [""]
        kept = [row for row in rows if row.endswith("\n") and int(row.partition(",")[0]) <= start]
        with _replacing(path) as temporary:
            temporary.write_text("".join([header, *kept] if kept else []))


def _board(run: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise MissingExtraError("tensorboard", "train", "the log of a training run") from error
    return SummaryWriter(str(run / "tensorboard"), purge_step=start + 1)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{rest} s"


@contextmanager
def _replacing(path: Path) -> Generator[Path]:
    """A temporary file that becomes `path`; its name is always the same, so that killed runs leave at most one."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def bar(items: Iterable[Any] | None, what: str, unit: str, **options: Any) -> Any:
    """Return a bar over `items`, or with None one that `update` moves on; options are tqdm's."""
    return tqdm(items, what, unit=unit, disable=None, file=sys.stderr, **options)
