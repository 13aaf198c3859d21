"""Drops on the pane in front of the lens: each shows the scene once more, upside down and small."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .filters import gaussian_blur, sample
from .light import Plane, blend

__all__ = ["Drop", "draw", "refracted"]

FOOTPRINT = 1.4  # how far a drop's soft edge reaches, in radii of its discs


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
    def reach(self) -> float:
        """Distance from the centre to the farthest rim."""
        away = np.hypot(*(self.discs[:, :2] - self.centre).T)
        return float((away + self.discs[:, 2]).max())


def draw(height: int, width: int, radius: tuple[float, float], rng: Generator) -> Drop:
    """A drop somewhere in the picture: one large disc and up to four smaller ones that overlap it, mostly below."""
    largest = rng.uniform(*radius)
    first = (rng.uniform(0, height), rng.uniform(0, width), largest)
    discs = [first]
    for _ in range(rng.integers(5)):
        angle, size = rng.normal(math.pi / 2, 1.0), largest * rng.uniform(0.4, 0.9)
        away = rng.uniform(0.5, 1.0) * largest
        discs.append((first[0] + away * math.sin(angle), first[1] + away * math.cos(angle), size))
    return Drop(np.array(discs), rng.uniform(2, 6), rng.uniform(0.1, 0.35))


def refracted(light: NDArray[np.float32], drops: list[Drop]) -> NDArray[np.float32]:
    """The scene (H, W, 3) through `drops`, in the order given: flipped, minified, blurred inside, soft at the edges."""
    blurred = gaussian_blur(light, 2.0)
    out = light.copy()
    for drop in drops:
        window = _window(drop, light.shape[0], light.shape[1])
        if window is not None:
            rows, columns = window
            y, x = np.mgrid[rows, columns].astype(np.float32)
            share = _share(drop, y, x)[..., np.newaxis]
            out[rows, columns] = blend(out[rows, columns], _inside(blurred, drop, y, x), share)
    return out


def _window(drop: Drop, height: int, width: int) -> tuple[slice, slice] | None:
    """The rectangle that a drop may touch, None when it lies outside the picture."""
    reach = FOOTPRINT * drop.discs[:, 2:]
    low = np.floor((drop.discs[:, :2] - reach).min(axis=0)).astype(int)
    high = np.ceil((drop.discs[:, :2] + reach).max(axis=0)).astype(int) + 1
    top, left, bottom, right = max(low[0], 0), max(low[1], 0), min(high[0], height), min(high[1], width)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _share(drop: Drop, y: Plane, x: Plane) -> Plane:
    """How much of each pixel the drop covers. Bumps of the discs add up, so that neighbours merge smoothly."""
    height = np.zeros(y.shape, np.float32)
    for cy, cx, radius in drop.discs:
        distance = ((y - np.float32(cy)) ** 2 + (x - np.float32(cx)) ** 2) / np.float32(radius**2)
        height += np.exp(np.float32(math.log(2)) * (1 - distance)) / 2  # 1/2 on the rim of a lone disc
    steep = np.clip((height - 0.5) / drop.softness + 0.5, 0, 1)
    return (steep * steep * (3 - 2 * steep)).astype(np.float32)


def _inside(blurred: NDArray[np.float32], drop: Drop, y: Plane, x: Plane) -> NDArray[np.float32]:
    """The scene as the drop shows it: turned upside down, around its centre; darker towards the upper rim.

    Beyond the photo's edge the scene is not known: the view is moved inside, and minified no more than fits.
    """
    reach, (height, width) = drop.reach, blurred.shape[:2]
    minified = max(1.0, min(drop.minified, min(height, width) / (2 * reach)))
    cy, cx = (np.float32(at) for at in drop.centre)
    my, mx = (_within(at, minified * reach, size) for at, size in zip(drop.centre, (height, width), strict=True))
    seen = sample(blurred, my - np.float32(minified) * (y - cy), mx - np.float32(minified) * (x - cx))
    rim = np.clip((cy - y) / np.float32(2 * reach), 0, 1)[..., np.newaxis]
    return (seen * (1 - 0.7 * rim)).astype(np.float32)


def _within(at: float, margin: float, size: int) -> np.float32:
    """The nearest position that is `margin` away from both ends, the middle where there is none."""
    return np.float32(size / 2 if 2 * margin >= size else min(max(at, margin), size - margin))
