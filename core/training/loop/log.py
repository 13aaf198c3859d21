"""The output of a run: log.csv, TensorBoard, images, and lines on stderr with the time left. Main process only.

On a terminal, tqdm draws progress bars on stderr; a clone without tqdm draws none.
"""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ...errors import MissingExtraError
from .recipe import Recipe

__all__ = ["Log", "Progress", "bar"]

CSV_NAME = "log.csv"
LINE_EVERY = 10.0  # seconds between lines if no terminal shows a bar


class Log:
    """The record of a run in its folder, in which step `start` was the last one saved."""

    def __init__(self, run: Path, start: int) -> None:
        self.run = run
        self._board = _board(run, start)
        self._drop_lines_after(start)

    def write(self, step: int, figures: Mapping[str, float], images: Mapping[str, Tensor]) -> None:
        """Add a line with the figures of a step, and the images, each (3, H, W) in [0, 1]."""
        self._append(step, figures)
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)
        for name, image in images.items():
            pixels = _pixels(image)
            self._board.add_image(name, pixels, step, dataformats="HWC")
            _replace(self.run / "pictures" / f"{name}-{step:07d}.png", _png(pixels))
        self._board.flush()

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._board.close()

    def _drop_lines_after(self, start: int) -> None:
        """A killed run may have written a line, or a part of one, after its last saved state."""
        path = self.run / CSV_NAME
        if not path.exists():
            return
        header, *rows = path.read_text().splitlines(keepends=True) or [""]
        kept = [row for row in rows if row.endswith("\n") and int(row.partition(",")[0]) <= start]
        _replace(path, "".join([header, *kept] if kept else []).encode())

    def _append(self, step: int, figures: Mapping[str, float]) -> None:
        path = self.run / CSV_NAME
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not path.exists() or path.stat().st_size == 0:
            writer.writerow(["step", *figures])
        writer.writerow([step, *(f"{value:.6g}" for value in figures.values())])
        with path.open("a") as file:
            file.write(text.getvalue())


@dataclass
class _Span:
    """The moment from which speed is counted."""

    step: int
    since: float = field(default_factory=time.monotonic)
    waited: float = 0.0  # seconds for data until then


class Progress:
    """The state of a run, its speed and the time left: a bar on a terminal, lines elsewhere."""

    def __init__(self, start: int, recipe: Recipe) -> None:
        self.recipe = recipe
        self.end: float | None = None
        self._bar = bar(None, "steps", "step", total=recipe.steps, initial=start)
        self._lines = not sys.stderr.isatty()
        self._spans = {"shown": _Span(start), "saved": _Span(start)}

    def begin(self, line: str, end: float | None) -> None:
        """Print a line about the training that begins now; speed is counted from here.

        end: the `time.monotonic` at which the run stops; None if only its steps end it.
        """
        self.end = end
        self.say(line)
        for span in self._spans.values():
            span.since = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line."""
        self._bar.write(line, file=sys.stderr)

    def step(self) -> None:
        """One more step is done."""
        self._bar.update()

    def show(self, done: int, loss: float, waited: float) -> None:
        """Show the progress on the bar, or every ten seconds in a line. waited: seconds for data so far."""
        span, now = self._spans["shown"], time.monotonic()
        if self._lines and now - span.since < LINE_EVERY:
            return
        data = (waited - span.waited) / max(now - span.since, 1e-9)
        text = f"loss {loss:.4g}  {self._speed(span, done, now)}  data {data:.0%}"
        if self._lines:
            self.say(f"{done}/{self.recipe.steps}  {self.recipe.megapixels(done):.4g} Mpx  {text}")
        else:
            self._bar.set_postfix_str(text, refresh=False)
        if now - span.since >= LINE_EVERY:
            self._spans["shown"] = _Span(done, now, waited)

    def report(self, done: int, figures: Mapping[str, float]) -> None:
        """Print the figures of a save, the speed since the last one and the time left."""
        now = time.monotonic()
        rest = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.say(f"{done}/{self.recipe.steps}  {rest}  {self._speed(self._spans['saved'], done, now)}")
        self._spans["saved"] = _Span(done, now)

    def _speed(self, span: _Span, done: int, now: float) -> str:
        seen = self.recipe.megapixels(done)
        speed = (seen - self.recipe.megapixels(span.step)) / max(now - span.since, 1e-9)
        left = (self.recipe.megapixels(self.recipe.steps) - seen) / max(speed, 1e-9)
        if self.end is not None:
            left = min(left, max(0.0, self.end - now))
        return f"{speed:.3g} Mpx/s  {_duration(left)} left"

    def close(self) -> None:
        """Leave the terminal tidy."""
        self._bar.close()


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


def _pixels(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    values = image.detach().float().clamp(0, 1).cpu().numpy().transpose(1, 2, 0)
    return np.floor(values * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """Write a temporary file, then rename it; its name is always the same, so that killed runs leave at most one."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)


def bar(items: Iterable[Any] | None, what: str, unit: str, **options: Any) -> Any:
    """Return a bar over `items`, or with None one that `update` moves on; options are tqdm's."""
    return tqdm(items, what, unit=unit, disable=None, file=sys.stderr, **options)
