"""The photos of the quality benchmark and the damage done to them, the same for every method and on every run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ...core import degradations
from ...core.arrays import Image
from ...core.errors import UsageError
from ...core.image import is_photo, read
from ...core.photo_list import clean_photos

__all__ = [
    "DAMAGES",
    "BenchPhoto",
    "Damage",
    "bench_set",
    "digest",
    "evenly",
    "in_folder",
    "load",
    "validation_crops",
    "validation_set",
]

Picture: TypeAlias = NDArray[np.float32]
Item = TypeVar("Item")

TEST_SETS = (("test/bsd100", 24), ("test/mcmaster", None))  # folder of the data and how many of it, evenly spaced
VALIDATION = "hq/cid22_val"


@dataclass(frozen=True)
class BenchPhoto:
    """A true photo: its folder and name, and (H, W, 3) uint8."""

    name: str
    pixels: Image


@dataclass(frozen=True)
class Damage:
    """A way to damage a photo, drawn from a generator; `sigma` is that of plain Gaussian noise in grey levels."""

    name: str
    apply: Callable[[Picture, Generator], Picture]
    sigma: float | None = None

    def __call__(self, pixels: Image) -> Image:
        """The damaged photo, (H, W, 3) uint8 in and out; the draw depends on the photo and the name alone."""
        seed = int.from_bytes(hashlib.sha256(f"{self.name} {digest(pixels)}".encode()).digest()[:8], "big")
        picture = pixels.astype(np.float32) / np.float32(255)
        damaged = self.apply(picture, np.random.default_rng(seed))
        return np.round(degradations.quantize(damaged) * 255).astype(np.uint8)


def _noise(sigma: float) -> Damage:
    return Damage(f"noise {sigma:g}", partial(_add_noise, sigma), sigma)


def _add_noise(sigma: float, picture: Picture, rng: Generator) -> Picture:
    return degradations.gaussian_noise(picture, sigma, rng)


def _jpeg(quality: int) -> Damage:
    return Damage(f"JPEG {quality}", partial(_compress, quality))


def _compress(quality: int, picture: Picture, _: Generator) -> Picture:
    return degradations.jpeg(picture, quality)


DAMAGES = (
    *(_noise(sigma) for sigma in (15, 25, 50)),
    *(_jpeg(quality) for quality in (10, 20, 40)),
    Damage("mixed", degradations.mixed_v1),
)


def digest(pixels: Image) -> str:
    """SHA-256 of a picture: its shape, dtype and values."""
    head = f"{pixels.shape} {pixels.dtype} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def evenly(items: Sequence[Item], count: int | None) -> list[Item]:
    """`count` of the items, evenly spaced and in order; all of them for None or a larger count."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def bench_set(data: Path) -> list[Path]:
    """The test photos of a data folder with a list: 24 of BSD100 and all of McMaster."""
    chosen = [evenly(clean_photos(data, split="test", folder=folder), count) for folder, count in TEST_SETS]
    return [photo.path for group in chosen for photo in group]


def validation_set(data: Path) -> list[Path]:
    """The photos of a data folder that rivals are tuned on."""
    return [photo.path for photo in clean_photos(data, split="val", folder=VALIDATION)]


def in_folder(folder: Path) -> list[Path]:
    """Every photo under `folder`, sorted; UsageError for none."""
    found = sorted(path for path in folder.rglob("*") if is_photo(path))
    if not found:
        raise UsageError(f"'{folder}' has no photos; give a folder of clean photos")
    return found


def load(paths: Sequence[Path]) -> list[BenchPhoto]:
    """Read photos as 8 bit; UsageError for one that is too small to be measured."""
    return [_load(path) for path in paths]


def _load(path: Path) -> BenchPhoto:
    pixels = read(path).pixels
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257).astype(np.uint8)
    height, width = pixels.shape[:2]
    if min(height, width) < 96 or max(height, width) < 192:
        raise UsageError(f"'{path}' has {width} x {height} pixels; NIQE needs two squares of 96: leave the photo out")
    return BenchPhoto(f"{path.parent.name}/{path.stem}", pixels)


def validation_crops(photos: Sequence[BenchPhoto], damage: Damage, side: int) -> list[tuple[Image, Image]]:
    """(true, damaged) central squares to tune rivals on; the whole photo is damaged, then cut."""
    return [(_centre(photo.pixels, side), _centre(damage(photo.pixels), side)) for photo in photos]


def _centre(pixels: Image, side: int) -> Image:
    top, left = (max(0, (size - side) // 2) for size in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]
