"""The photos of the quality benchmark: damaged ones with the truth, and those that methods are tuned on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ...core.arrays import Image
from ...core.degradations.fixed import FixedDamage
from ...core.errors import UsageError
from ...core.photo.io import is_photo, read
from ...core.photo.listing import clean_photos, damaged_photos

__all__ = [
    "BenchPair",
    "BenchPhoto",
    "Trial",
    "bench_set",
    "centres",
    "evenly",
    "has_real",
    "in_folder",
    "load",
    "real_trial",
    "trials",
    "validation_set",
]

_Item = TypeVar("_Item")

TEST_SETS = (("test/bsd100", 24), ("test/mcmaster", None))  # folder of the data and how many of it, evenly spaced
VALIDATION = "hq/cid22_val"
REAL_NOISE = "PolyU"  # real camera noise: photos of one scene, one of which is the mean of many
REAL_FOLDER = "paired/denoise_polyu"
REAL_COUNT = 8  # pairs that are measured, and as many others that methods are tuned on


class BenchPhoto(NamedTuple):
    """A true photo: its folder and name, and (H, W, 3) uint8."""

    name: str
    pixels: Image


class BenchPair(NamedTuple):
    """A photo before and after the damage, (H, W, 3) uint8 both."""

    name: str
    true: Image
    damaged: Image


@dataclass(frozen=True)
class Trial:
    """One kind of damage: the pairs that every method restores, and those that methods are tuned on."""

    damage: str
    sigma: float | None  # of plain white noise, in grey levels; None for other damage
    pairs: Sequence[BenchPair]
    tuning: Sequence[BenchPair]


def trials(
    photos: Sequence[BenchPhoto], validation: Sequence[BenchPhoto], damages: Iterable[FixedDamage]
) -> Iterator[Trial]:
    """The photos under each damage in turn; one trial at a time, because each holds all photos twice."""
    for damage in damages:
        measured, tuning = (
            [BenchPair(p.name, p.pixels, damage(p.pixels)) for p in some] for some in (photos, validation)
        )
        yield Trial(damage.name, damage.sigma, measured, tuning)


def has_real(data: Path) -> bool:
    """Whether a data folder with a list has real pairs."""
    return bool(damaged_photos(data, split="val", folder=REAL_FOLDER))


def real_trial(data: Path, limit: int | None = None) -> Trial:
    """Real pairs of a data folder with a list: at most `limit` of its validation split, tuned on its training split."""
    measured, tuning = (
        evenly(damaged_photos(data, split=split, folder=REAL_FOLDER), REAL_COUNT) for split in ("val", "train")
    )
    pairs, others = (
        [BenchPair(*load(clean), load(damaged).pixels) for damaged, clean in files]
        for files in (evenly(measured, limit), tuning)
    )
    return Trial(REAL_NOISE, None, pairs, others)


def evenly(items: Sequence[_Item], count: int | None) -> list[_Item]:
    """`count` of the items, evenly spaced and in order; all of them for None or a larger count."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def bench_set(data: Path) -> list[Path]:
    """The test photos of a data folder with a list: 24 of BSD100 and all of McMaster."""
    chosen = [evenly(clean_photos(data, split="test", folder=folder), count) for folder, count in TEST_SETS]
    return [photo.path for group in chosen for photo in group]


def validation_set(data: Path) -> list[Path]:
    """The photos of a data folder that methods are tuned on."""
    return [photo.path for photo in clean_photos(data, split="val", folder=VALIDATION)]


def in_folder(folder: Path) -> list[Path]:
    """Every photo under `folder`, sorted; UsageError where there is none."""
    found = sorted(path for path in folder.rglob("*") if is_photo(path))
    if not found:
        raise UsageError(f"there are no photos in '{folder}'; give a folder of clean photos")
    return found


def load(path: Path) -> BenchPhoto:
    """Read a photo as 8 bit; UsageError for one that is too small for the metrics."""
    pixels = read(path).pixels
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257).astype(np.uint8)
    height, width = pixels.shape[:2]
    if min(height, width) < 96 or max(height, width) < 192:
        raise UsageError(f"'{path}' has {width} x {height} pixels; NIQE needs two squares of 96: leave this photo out")
    return BenchPhoto(f"{path.parent.name}/{path.stem}", pixels)


def centres(pairs: Sequence[BenchPair], side: int) -> list[BenchPair]:
    """The central squares of pairs, to tune methods on; whole photos are damaged, then cut."""

    def centre(pixels: Image) -> Image:
        top, left = (max(0, (size - side) // 2) for size in pixels.shape[:2])
        return pixels[top : top + side, left : left + side]

    return [BenchPair(pair.name, centre(pair.true), centre(pair.damaged)) for pair in pairs]
