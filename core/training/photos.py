"""The photos that training draws from: decoded once, cut at random."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import TrainingError
from ..image import read
from ..texture import structure
from ..thumbnail import thumbnail

__all__ = ["Crop", "Pool", "load"]

CONTEXTS = 8  # random views of each photo that stand for "the whole photo" of a crop
LARGE = 1_000_000  # photos with more pixels are halved: their finest level is mostly softness and JPEG


@dataclass(frozen=True)
class Crop:
    """A square cut from a photo. Pictures are (size, size, 3) float32 in [0, 1]."""

    clean: NDArray[np.float32]
    smooth: NDArray[np.float32]  # the structure of `clean`; empty when the pool holds none
    context: int  # row of `Pool.contexts` that shows the photo around it


@dataclass(frozen=True)
class Pool:
    """Photos in memory."""

    photos: list[NDArray[np.uint8]]  # (H, W, 3)
    structures: list[NDArray[np.uint8]]  # the same shapes, or an empty list
    contexts: NDArray[np.uint8]  # (len(photos) * CONTEXTS, 3, side, side): thumbnails of large random views

    def crop(self, size: int, rng: Generator) -> Crop:
        """A random square, turned and mirrored at random; photos are drawn in proportion to their area."""
        areas = np.array([p.shape[0] * p.shape[1] for p in self.photos], float)
        index = int(rng.choice(len(areas), p=areas / areas.sum()))
        height, width = self.photos[index].shape[:2]
        y, x = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
        turn, mirror = int(rng.integers(4)), bool(rng.integers(2))

        def cut(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
            square = np.rot90(photo[y : y + size, x : x + size], turn)
            return (square[:, ::-1] if mirror else square).astype(np.float32) / np.float32(255)

        smooth = cut(self.structures[index]) if self.structures else np.empty(0, np.float32)
        return Crop(cut(self.photos[index]), smooth, index * CONTEXTS + int(rng.integers(CONTEXTS)))


def load(paths: Iterable[Path], *, minimum: int, side: int, structures: bool) -> Pool:
    """Decode photos; those smaller than `minimum` pixels on a side are left out, very large ones halved.

    side: size of the context thumbnails. structures: whether to compute the structure layers (about 0.3 s per MP).
    """
    photos = [_halved(read(path).pixels) for path in tqdm(list(paths), desc="photos", unit="photo", disable=None)]
    photos = [p for p in photos if min(p.shape[:2]) >= minimum]
    if not photos:
        raise TrainingError(f"every photo is smaller than the crop of {minimum} pixels; use larger photos or crops")
    layers = tqdm(photos if structures else [], desc="structures", unit="photo", disable=None)
    contexts = [view for i, photo in enumerate(photos) for view in _views(photo, side, np.random.default_rng(i))]
    return Pool(photos, [_structure(p) for p in layers], np.stack(contexts))


def _halved(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8:
        pixels = np.round(pixels / 257).astype(np.uint8)
    if pixels.shape[0] * pixels.shape[1] <= LARGE:
        return pixels.astype(np.uint8, copy=False)
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    quads = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return np.round(quads.mean(axis=(1, 3))).astype(np.uint8)


def _structure(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.round(structure(photo.astype(np.float32) / np.float32(255)) * 255).astype(np.uint8)


def _views(photo: NDArray[np.uint8], side: int, rng: Generator) -> list[NDArray[np.uint8]]:
    """Thumbnails (3, side, side) of random rectangles that cover 60 to 100 % of each dimension."""
    views = []
    for _ in range(CONTEXTS):
        height, width = (int(size * rng.uniform(0.6, 1)) for size in photo.shape[:2])
        y, x = int(rng.integers(photo.shape[0] - height + 1)), int(rng.integers(photo.shape[1] - width + 1))
        view = thumbnail(photo[y : y + height, x : x + width], side)
        views.append(np.round(view[0] * 255).astype(np.uint8))
    return views
