"""What has been measured, line by line on disk: a search that was killed goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...core.errors import UsageError

__all__ = ["Memory"]

DIGITS = 6  # of a number: what is computed and what is read back are the same


class Memory:
    """Lists of numbers by name, in a text file: one JSON line each, after a first line that says of what.

    Raises UsageError for a file that belongs to another search.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path = path
        self.known: dict[str, list[float]] = {}
        lines = _whole_lines(path)
        if lines and json.loads(lines[0]) != {"about": about}:
            raise UsageError(
                f"'{path}' has measurements of another pack, other photos or other versions; remove it to start anew"
            )
        for line in lines[1:]:
            self.known |= json.loads(line)
        # What a kill cut off in its middle is written again.
        path.write_text("".join(f"{line}\n" for line in lines or [json.dumps({"about": about})]), encoding="utf-8")

    def __call__(self, name: str, measure: Callable[[], Sequence[float]]) -> list[float]:
        """The numbers of that name; measured, rounded and kept if they are not known yet."""
        if name not in self.known:
            self.known[name] = [float(f"{number:.{DIGITS}g}") for number in measure()]
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({name: self.known[name]}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return self.known[name]


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return whole
