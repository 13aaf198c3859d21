"""The photos that training draws from: decoded once, cut at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from ...arrays import FloatImage
from ...degradations import TASKS, ShrinkTask, Task, Window
from ...degradations.filters import structure
from ...errors import TrainingError
from ...photo.io import read
from ...photo.resize import thumbnail
from ..loop.run_folder import bar

__all__ = [
    "CONTEXTS",
    "Crop",
    "PhotoSource",
    "Pixels",
    "Pool",
    "TrainingData",
    "gather",
    "load",
    "planar",
    "to_8_bits",
    "val_pairs",
]

CONTEXTS = 8  # random views of each photo, one of which is the thumbnail of a crop
GREY = 0.03  # share of the crops that are greyscale, unless the pool is paired
LARGE = 1_000_000  # photos with more pixels are halved: their finest detail is mostly blur and JPEG artefacts

Pixels: TypeAlias = NDArray[np.uint8]

EMPTY: FloatImage = np.empty(0, np.float32)


@dataclass(frozen=True)
class Crop:
    """A square cut from a photo. Images are (size, size, 3) float32 in [0, 1]."""

    clean: FloatImage
    smooth: FloatImage  # the structure of `clean`; empty when the pool holds none
    damaged: FloatImage  # the same square of the damaged photo; empty without a task
    thumbnail: Pixels  # (3, side, side): a view of the photo around it


@dataclass(frozen=True)
class Pool:
    """Photos in memory."""

    photos: list[Pixels]  # (H, W, 3), clean
    structures: list[Pixels]  # the same shapes, or an empty list
    contexts: Pixels  # (len(photos) * CONTEXTS, 3, side, side): thumbnails of large random views
    damaged: list[Pixels] = field(default_factory=list)  # the same shapes, or an empty list: damage is made

    def at(self, sample: int, group: int = 0) -> Pool:
        """As in `PhotoSource`: always these photos."""
        del sample, group
        return self

    def crop(
        self, size: int, rng: Generator, task: str | None = None, tasks: Mapping[str, Task | ShrinkTask] = TASKS
    ) -> Crop:
        """A random square, turned and mirrored at random; photos are drawn in proportion to their area.

        task: of `tasks`; the damage, unless the pool is paired. It is applied to the whole photo, so that the
        surroundings of the square count.
        """
        index = int(np.searchsorted(self._areas, rng.integers(self._areas[-1]), side="right"))
        turn, mirror = int(rng.integers(4)), bool(rng.integers(2))
        height, width = self.photos[index].shape[:2][:: -1 if turn % 2 else 1]
        y, x = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
        row = index * CONTEXTS + int(rng.integers(CONTEXTS))

        def window(photo: Pixels) -> Window:
            turned = np.rot90(photo, turn)
            return Window(turned[:, ::-1] if mirror else turned, y, x, size, size)

        clean, damaged = window(self.photos[index]), EMPTY
        if self.damaged:
            damaged = window(self.damaged[index]).pixels()
        elif task is not None:
            clean = replace(clean, grey=rng.random() < GREY)
            damaged = tasks[task].damage(clean, rng)
            if clean.grey:  # damage without colour as well: one channel, repeated, so that noise keeps its strength
                damaged = np.repeat(damaged[..., 1:2], 3, axis=2)
        smooth = window(self.structures[index]).pixels() if self.structures else EMPTY
        return Crop(clean.pixels(), smooth, damaged, self.contexts[row])

    @cached_property
    def _areas(self) -> NDArray[np.int64]:
        return np.cumsum([p.shape[0] * p.shape[1] for p in self.photos])


class PhotoSource(Protocol):
    """The photos of training; which ones are returned depends only on the arguments."""

    def at(self, sample: int, group: int = 0) -> Pool:
        """The pool that a group of the samples of a step are drawn from; `sample` is the number of the step's first."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """Photos to learn from, and held-back ones."""

    train: PhotoSource
    val: Pool


def planar(image: FloatImage) -> FloatImage:
    """(H, W, 3) -> (3, H, W), contiguous."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)


def val_pairs(pool: Pool, task: str, size: int = 256) -> tuple[Tensor, Tensor]:
    """Damaged and clean centre crops of every photo, each (N, 3, size, size) in [0, 1].

    The whole photos are damaged, each with a seed of its own that never changes.
    """
    damaged, clean = [], []
    for i, photo in enumerate(pool.photos):
        whole = Window.whole(photo)
        if pool.damaged:
            worse = Window.whole(pool.damaged[i]).pixels()
        else:
            worse = TASKS[task].damage(whole, np.random.default_rng(i))
        y, x = ((side - size) // 2 for side in photo.shape[:2])
        for crops, image in ((damaged, worse), (clean, whole.pixels())):
            crops.append(planar(image[y : y + size, x : x + size]))
    return torch.from_numpy(np.stack(damaged)), torch.from_numpy(np.stack(clean))


def load(
    paths: Sequence[Path],
    *,
    minimum: int,
    side: int,
    structures: bool,
    damaged: Sequence[Path] = (),
    quiet: bool = False,
) -> Pool:
    """Decode photos into a pool, see `gather`; very large ones are halved.

    damaged: for paired data, the damaged photo of each of `paths`. Pairs keep their size: damage is real only at its
    own scale. quiet: without progress bars. Raises TrainingError if the two photos of a pair differ in size.
    """
    halve = not damaged
    shown = (lambda items, *_: items) if quiet else bar
    photos = [to_8_bits(read(path).pixels, halve=halve) for path in shown(paths, "photos", "photo")]
    worse = [to_8_bits(read(path).pixels, halve=False) for path in shown(damaged, "damaged", "photo")]
    for path, damaged_path, a, b in zip(paths, damaged, photos, worse, strict=False):
        if a.shape != b.shape:
            raise TrainingError(
                f"{damaged_path} has {b.shape[1]} x {b.shape[0]} pixels and its clean photo {path} {a.shape[1]} x "
                f"{a.shape[0]}; both must have the same size: enlarge the damaged photo first"
            )
    return gather(photos, worse, minimum=minimum, side=side, structures=structures)


def gather(
    photos: Sequence[Pixels], damaged: Sequence[Pixels] = (), *, minimum: int, side: int, structures: bool
) -> Pool:
    """A pool of decoded photos (H, W, 3), without those that have a side below `minimum` pixels.

    damaged: empty, or one photo for each of `photos`. side: of the context thumbnails, pixels, 0 for none. structures:
    whether to compute the structure layers (about 0.3 s per megapixel). Raises TrainingError if no photo is large
    enough.
    """
    kept = [i for i, photo in enumerate(photos) if min(photo.shape[:2]) >= minimum]
    if not kept:
        raise TrainingError(f"every photo is smaller than the crop of {minimum} pixels; use larger photos or crops")
    clean = [photos[i] for i in kept]
    layers = bar(clean if structures else [], "structures", "photo")
    contexts = [view for i, photo in enumerate(clean) for view in _views(photo, side, np.random.default_rng(i))]
    return Pool(
        clean, [_structure(p) for p in layers], np.stack(contexts), [damaged[i] for i in kept] if damaged else []
    )


def to_8_bits(pixels: NDArray[np.uint8] | NDArray[np.uint16], *, halve: bool) -> Pixels:
    """Pixels as uint8; with `halve`, a photo of more than `LARGE` pixels at half its size."""
    small = np.round(pixels / 257).astype(np.uint8) if pixels.dtype != np.uint8 else pixels.astype(np.uint8, copy=False)
    if not halve or small.shape[0] * small.shape[1] <= LARGE:
        return small
    height, width = small.shape[0] // 2, small.shape[1] // 2
    quads = small[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return np.round(quads.mean(axis=(1, 3))).astype(np.uint8)


def _structure(photo: Pixels) -> Pixels:
    return np.round(structure(photo.astype(np.float32) / np.float32(255)) * 255).astype(np.uint8)


def _views(photo: Pixels, side: int, rng: Generator) -> list[Pixels]:
    """Thumbnails (3, side, side) of random rectangles that cover 60 to 100 % of each dimension."""
    if not side:
        return [np.empty((3, 0, 0), np.uint8)] * CONTEXTS
    views = []
    for _ in range(CONTEXTS):
        height, width = (int(size * rng.uniform(0.6, 1)) for size in photo.shape[:2])
        y, x = int(rng.integers(photo.shape[0] - height + 1)), int(rng.integers(photo.shape[1] - width + 1))
        view = thumbnail(photo[y : y + height, x : x + width], side)
        views.append(np.round(view[0] * 255).astype(np.uint8))
    return views
