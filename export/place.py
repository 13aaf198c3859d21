"""Where a pack may be written."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.errors import PhotoWriteError
from ..core.files import failure_reason

__all__ = ["check_place"]


def check_place(folder: Path) -> None:
    """Make the folder above `folder`. Raises PhotoWriteError where no pack can be written, or one is there."""
    if folder.exists():
        raise PhotoWriteError(f"{folder} exists already; remove it or choose another folder with -o")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotoWriteError(f"the folder {folder.parent} cannot be made: {failure_reason(error)}") from error
    if not os.access(folder.parent, os.W_OK):
        raise PhotoWriteError(f"{folder} cannot be written: you may not write to {folder.parent}; choose another -o")
