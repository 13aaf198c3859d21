"""Squares of photos in one file, compressed without loss, that NumPy alone can read."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ...core.photo.io import read
from ...core.training.data.photos import Pixels, to_8_bits
from .carried import coded

__all__ = ["SIDE", "centres", "squares", "write"]

SIDE = 256  # pixels; held-back photos are judged at this size


def write(path: Path, photos: Iterable[Pixels], limit: int) -> int:
    """Write photos, coded, as arrays of an .npz file until `limit` bytes are about to be passed; how many there are."""
    count = 0
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for photo in photos:
            before = file.tell()
            with archive.open(f"{count:05}.npy", "w") as entry:
                np.save(entry, coded(photo), allow_pickle=False)
            count += 1
            if 2 * file.tell() - before > limit:
                break
    return count


def squares(paths: Sequence[Path], seed: int = 0) -> Iterator[Pixels]:
    """Random squares (SIDE, SIDE, 3) uint8: one of every photo, another of every one that holds two, and so on."""
    rng = np.random.default_rng(seed)
    left = {path: math.prod(length // SIDE for length in _photo(path).shape[:2]) for path in paths}
    while left := {path: count for path, count in left.items() if count}:
        for path in left:
            left[path] -= 1
            photo = _photo(path)
            y, x = (int(rng.integers(length - SIDE + 1)) for length in photo.shape[:2])
            yield photo[y : y + SIDE, x : x + SIDE]


def centres(paths: Sequence[Path]) -> Iterator[Pixels]:
    """The centre of every photo that is large enough, (SIDE, SIDE, 3) uint8."""
    for path in paths:
        photo = _photo(path)
        y, x = ((length - SIDE) // 2 for length in photo.shape[:2])
        if min(y, x) >= 0:
            yield photo[y : y + SIDE, x : x + SIDE]


def _photo(path: Path) -> Pixels:
    return to_8_bits(read(path).pixels, halve=True)
