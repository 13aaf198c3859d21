"""What a run tells: log.csv, TensorBoard, pictures, and lines on stderr with the time left. Main process only."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import MissingExtraError
from .bars import bar

__all__ = ["Log", "Progress"]

CSV_NAME = "log.csv"


class Log:
    """The record of a run in its folder, in which step `start` was the last one saved.

    board: whether TensorBoard and pictures are written as well, which need packages beside PyTorch and NumPy.
    """

    def __init__(self, run: Path, start: int, board: bool) -> None:
        self.run = run
        self._board = _board(run, start) if board else None
        self._drop_lines_after(start)

    def write(self, figures: Mapping[str, float], pictures: Mapping[str, Tensor]) -> None:
        """Add a line with the figures ("step" first) and the pictures, each (3, H, W) in [0, 1]."""
        step = int(figures["step"])
        self._append(figures)
        if self._board is None:
            return
        for name, value in figures.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
        for name, picture in pictures.items():
            levels = _levels(picture)
            self._board.add_image(name, levels, step, dataformats="HWC")
            _replace(self.run / "pictures" / f"{name}-{step:07d}.png", _png(levels))
        self._board.flush()

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self._board is not None:
            self._board.close()

    def _drop_lines_after(self, start: int) -> None:
        """A killed run may have written a line, or a part of one, after its last saved state."""
        path = self.run / CSV_NAME
        if not path.exists():
            return
        header, *rows = path.read_text().splitlines(keepends=True) or [""]
        kept = [row for row in rows if row.endswith("\n") and int(row.partition(",")[0]) <= start]
        _replace(path, "".join([header, *kept] if kept else []).encode())

    def _append(self, figures: Mapping[str, float]) -> None:
        path = self.run / CSV_NAME
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not path.exists() or path.stat().st_size == 0:
            writer.writerow(figures)
        writer.writerow([int(figures["step"]), *(f"{v:.6g}" for k, v in figures.items() if k != "step")])
        with path.open("a") as file:
            file.write(text.getvalue())


class Progress:
    """Speed and time left: a bar on a terminal, and with every save a line."""

    def __init__(self, start: int, steps: int) -> None:
        self.steps = steps
        self._bar = bar(None, "steps", "step", total=steps, initial=start)
        self._since, self._count = time.monotonic(), 0

    def step(self) -> None:
        """One more step is done."""
        self._bar.update()
        self._count += 1

    def report(self, figures: Mapping[str, float]) -> None:
        """Print the figures of a save, the speed since the last one and the time left."""
        now = time.monotonic()
        speed = self._count / max(now - self._since, 1e-9)
        left = (self.steps - int(figures["step"])) / max(speed, 1e-9)
        rest = "  ".join(f"{name} {value:.4g}" for name, value in figures.items() if name != "step")
        line = f"{int(figures['step'])}/{self.steps}  {rest}  {speed:.3g} steps/s  {_duration(left)} left"
        self._bar.write(line, file=sys.stderr)
        self._since, self._count = now, 0

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


def _levels(picture: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    values = picture.detach().float().clamp(0, 1).cpu().numpy().transpose(1, 2, 0)
    return np.floor(values * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _png(levels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """Write beside, then rename; always beside under one name, so that killed runs leave no heap of parts."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
