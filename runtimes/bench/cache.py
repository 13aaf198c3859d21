"""Results of slow rivals and of metrics, kept on disk between runs of a benchmark.

A key is the full text of what was computed; its hash names the file. Nothing is looked up by place or date, so an
entry can never be stale, and the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from ...core.arrays import Image
from ...core.files import atomic_output

__all__ = ["Cache"]


@dataclass(frozen=True)
class Cache:
    """A folder of results; made when the first one is kept."""

    folder: Path

    def picture(self, key: str, make: Callable[[], Image]) -> Image:
        """What `make` gives, (H, W, 3) uint8, computed once per key."""
        path = self._path(key, ".png")
        if path.exists():
            with PilImage.open(path) as stored:
                return np.asarray(stored)
        made = make()
        with atomic_output(path, overwrite=True) as temporary:
            PilImage.fromarray(made).save(temporary)
        return made

    def numbers(self, key: str, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What `make` gives, computed once per key."""
        path = self._path(key, ".json")
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        made = make()
        with atomic_output(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(made), encoding="utf-8")
        return made

    def _path(self, key: str, suffix: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        path = self.folder / name[:2] / f"{name[2:34]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
