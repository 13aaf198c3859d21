"""Drops on the pane in front of the lens: each shows the scene once more, upside down and small."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..arrays import FloatImage, Plane
from .filters import gaussian_blur, mirrored, sample
from .srgb import blend, srgb_to_linear
from .windows import Window

__all__ = ["Drop", "draw", "refracted"]

_BLUR = 2.0  # pixels, of the scene in a drop: out of focus, and shown smaller
_FOOTPRINT = 1.4  # how far a drop's soft edge reaches, in radii of its discs


@dataclass(frozen=True)
class Drop:
    """A drop of merged discs: rows (y, x, radius) in pixels. It shows the scene `minified` times smaller."""

    discs: NDArray[np.float64]
    minified: float
    softness: float  # width of its edge, as a share of its radius

    @property
    def centre(self) -> tuple[float, float]:
        """Mean position of its discs, weighted by their areas."""
        areas = self.discs[:, 2] ** 2
        y, x = (areas[:, np.newaxis] * self.discs[:, :2]).sum(axis=0) / areas.sum()
        return float(y), float(x)

    @property
    def radius(self) -> float:
        """Distance from the centre to the farthest rim."""
        away = np.hypot(*(self.discs[:, :2] - self.centre).T)
        return float((away + self.discs[:, 2]).max())


def draw(height: int, width: int, radius: tuple[float, float], rng: Generator) -> Drop:
    """A drop somewhere in the image: one large disc and up to four smaller ones that overlap it, mostly below."""
    largest = rng.uniform(*radius)
    first = (rng.uniform(0, height), rng.uniform(0, width), largest)
    discs = [first]
    for _ in range(rng.integers(5)):
        angle, size = rng.normal(math.pi / 2, 1.0), largest * rng.uniform(0.4, 0.9)
        away = rng.uniform(0.5, 1.0) * largest
        discs.append((first[0] + away * math.sin(angle), first[1] + away * math.cos(angle), size))
    return Drop(np.array(discs), rng.uniform(2, 6), rng.uniform(0.1, 0.35))


def refracted(window: Window, drops: list[Drop]) -> NDArray[np.float32]:
    """Linear light of a window of a photo seen through `drops`, in the order given.

    A drop, placed in the photo, shows it flipped, minified and blurred, with soft edges.
    """
    out = srgb_to_linear(window.pixels())
    for drop in drops:
        touched = _touched(drop, window)
        if touched is not None:
            rows, columns = touched
            y, x = np.mgrid[rows, columns].astype(np.float32)
            share = _share(drop, y, x)[..., np.newaxis]
            place = np.s_[
                rows.start - window.top : rows.stop - window.top,
                columns.start - window.left : columns.stop - window.left,
            ]
            out[place] = blend(out[place], _inside(window, drop, y, x), share)
    return out


def _touched(drop: Drop, window: Window) -> tuple[slice, slice] | None:
    """Rows and columns of the photo that a drop may change within the window, None when there are none."""
    margin = _FOOTPRINT * drop.discs[:, 2:]
    low = np.floor((drop.discs[:, :2] - margin).min(axis=0)).astype(int)
    high = np.ceil((drop.discs[:, :2] + margin).max(axis=0)).astype(int) + 1
    _, _, rows, columns = window.part
    top, left = max(low[0], rows.start), max(low[1], columns.start)
    bottom, right = min(high[0], rows.stop), min(high[1], columns.stop)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _share(drop: Drop, y: Plane, x: Plane) -> Plane:
    """How much of each pixel the drop covers. Bumps of the discs add up, so that neighbours merge smoothly."""
    height = np.zeros(y.shape, np.float32)
    for cy, cx, radius in drop.discs:
        distance = ((y - np.float32(cy)) ** 2 + (x - np.float32(cx)) ** 2) / np.float32(radius**2)
        height += np.exp(np.float32(math.log(2)) * (1 - distance)) / 2  # 1/2 on the rim of a lone disc
    steep = np.clip((height - 0.5) / drop.softness + 0.5, 0, 1)
    return (steep * steep * (3 - 2 * steep)).astype(np.float32)


def _inside(window: Window, drop: Drop, y: Plane, x: Plane) -> NDArray[np.float32]:
    """The scene as the drop shows it: turned upside down, around its centre; darker towards the upper rim.

    Beyond the photo's edge the scene is not known: the view is moved inside, and minified no more than fits.
    """
    radius, (height, width) = drop.radius, window.photo.shape[:2]
    minified = max(1.0, min(drop.minified, min(height, width) / (2 * radius)))
    cy, cx = (np.float32(at) for at in drop.centre)
    my, mx = (_within(at, minified * radius, size) for at, size in zip(drop.centre, (height, width), strict=True))
    seen = _blurred(window, my - np.float32(minified) * (y - cy), mx - np.float32(minified) * (x - cx))
    rim = np.clip((cy - y) / np.float32(2 * radius), 0, 1)[..., np.newaxis]
    return (seen * (1 - 0.7 * rim)).astype(np.float32)


def _blurred(window: Window, y: Plane, x: Plane) -> NDArray[np.float32]:
    """Light of the blurred photo at positions y, x, which may lie outside it by little: its edge is mirrored."""
    height, width = window.photo.shape[:2]
    y, x = mirrored(y, height), mirrored(x, width)
    top, left = int(y.min()), int(x.min())
    seen = replace(window, top=top, left=left, height=int(y.max()) + 2 - top, width=int(x.max()) + 2 - left)
    wide = seen.widened(math.ceil(3 * _BLUR), 2)
    blurred = gaussian_blur(_halved(srgb_to_linear(wide.pixels())), _BLUR / 2)
    across, along = (
        ((at - np.float32(first + 0.5)) / 2).astype(np.float32, copy=False)
        for at, first in ((y, wide.top), (x, wide.left))
    )
    return sample(blurred, across, along)


def _halved(linear: FloatImage) -> FloatImage:
    """Means of 2 x 2 pixels; the last row and column are repeated where one is missing."""
    height, width = (size + size % 2 for size in linear.shape[:2])
    even = np.pad(linear, ((0, height - linear.shape[0]), (0, width - linear.shape[1]), (0, 0)), mode="edge")
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / np.float32(4)


def _within(at: float, margin: float, size: int) -> np.float32:
    """The nearest position that is `margin` away from both ends, the middle where there is none."""
    return np.float32(size / 2 if 2 * margin >= size else min(max(at, margin), size - margin))
