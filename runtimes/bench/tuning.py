"""Results of slow methods and of metrics, kept on disk, and the settings of a method that are chosen by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image as PilImage

from ...core.arrays import Image
from ...core.degradations.fixed import image_digest
from ...core.files import atomic_output
from ...core.metrics import psnr
from .trials import BenchPair

__all__ = ["ResultCache", "best_setting"]

Setting = TypeVar("Setting")


@dataclass(frozen=True)
class ResultCache:
    """A folder of results, made with the first one.

    A key is the full text of what was computed; its hash names the file. So an entry is never stale, and the folder
    may be deleted at any time.
    """

    folder: Path

    def image(self, key: str, make: Callable[[], Image]) -> Image:
        """What `make` returns, (H, W, 3) uint8, computed once per key."""
        path = self._path(key, ".png")
        if path.exists():
            with PilImage.open(path) as stored:
                return np.asarray(stored)
        made = make()
        with atomic_output(path, overwrite=True) as temporary:
            PilImage.fromarray(made).save(temporary)
        return made

    def numbers(self, key: str, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What `make` returns, computed once per key."""
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


def best_setting(
    settings: Iterable[Setting],
    method: Callable[[Image, Setting], Image],
    pairs: Sequence[BenchPair],
    cache: ResultCache,
    version: str,
) -> tuple[float, Setting]:
    """The best mean PSNR in dB, and the setting that reaches it.

    Args:
        settings: In rising strength; the search ends when the PSNR falls twice in a row.
        method: Restores an image, (H, W, 3) uint8 in and out.
        pairs: What is restored.
        cache: Keeps each result.
        version: Names the method and the version of its program in the cache.
    """
    key = f"{version} {' '.join(image_digest(image)[:16] for pair in pairs for image in (pair.true, pair.damaged))}"
    scores: list[tuple[float, Setting]] = []
    for setting in settings:
        score = cache.numbers(f"{key} {setting}", partial(_score, method, setting, pairs))
        scores.append((score["psnr"], setting))
        if len(scores) > 2 and scores[-3][0] > scores[-2][0] > scores[-1][0]:
            break
    return max(scores, key=itemgetter(0))


def _score(method: Callable[[Image, Setting], Image], setting: Setting, pairs: Sequence[BenchPair]) -> dict[str, float]:
    return {"psnr": float(np.mean([psnr(pair.true, method(pair.damaged, setting)) for pair in pairs]))}
