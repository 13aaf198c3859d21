"""Rain, snow and haze: light that air and water add to a scene and take from it, and random fields over an image.

Scenes are in linear light, (H, W, 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..arrays import FloatImage, Plane
from . import blur
from .filters import convolve, convolve_inside, resize
from .srgb import blend
from .windows import Part

__all__ = ["SmoothField", "flake", "hazed", "lit", "scattered", "screened", "streak"]


def streak(length: float, width: float, angle: float) -> Plane:
    """The trace of one raindrop: largest value 1, `length` and `width` in pixels, `angle` (radians) from the vertical.

    Its ends fade, its profile is a Gaussian of full width `width` at half height.
    """
    radius = math.ceil(length / 2 + width)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    along = y * math.cos(angle) + x * math.sin(angle)
    across = x * math.cos(angle) - y * math.sin(angle)
    taper = np.clip(1 - (2 * np.abs(along) / length) ** 4, 0, 1)
    trace = np.exp(-4 * math.log(2) * (across / width) ** 2) * taper
    wide = math.ceil(radius * abs(math.sin(angle)) + width + 1)  # cut the empty margin: the filter is faster
    margin = max(radius - wide, 0)
    return trace[:, margin : trace.shape[1] - margin].astype(np.float32)


def flake(radius: float, motion: float, angle: float) -> Plane:
    """A snowflake that falls: a soft disc of `radius` pixels drawn out over `motion` pixels; largest value 1."""
    reach = math.ceil(motion / 2)
    disc = blur.disc(radius)
    room = np.pad(disc, math.ceil(radius / 4) + reach)
    soft = convolve(room, blur.gaussian(2 * math.ceil(radius / 2) + 3, (radius / 3, radius / 3), 0.0))
    drawn = np.clip(convolve(soft, streak(motion, 1.0, angle)) if motion >= 1 else soft, 0, None)
    return drawn / drawn.max()


def screened(linear: FloatImage, layers: list[tuple[Plane, float]]) -> FloatImage:
    """Streaks of light over a scene, each (mask, brightness in linear light): 1 - (1 - J) * prod(1 - b * M)."""
    dark = 1 - linear.astype(np.float64)
    for mask, brightness in layers:
        dark *= 1 - brightness * mask[..., np.newaxis]
    return (1 - dark).astype(np.float32)


def hazed(linear: FloatImage, transmission: Plane, airlight: NDArray[np.float32]) -> FloatImage:
    """Koschmieder's law: I = J * t + A * (1 - t); t (H, W) and A (3,) in [0, 1]."""
    return blend(airlight, linear, transmission[..., np.newaxis])


def lit(linear: FloatImage, masks: list[tuple[Plane, float]]) -> FloatImage:
    """Light added without limit, each (mask, brightness): J + sum of b * M, the heavy rain of Li et al. (CVPR 2019)."""
    out = linear.copy()
    for mask, brightness in masks:
        out += np.float32(brightness) * mask[..., np.newaxis]
    return out


@dataclass(frozen=True)
class SmoothField:
    """Values in [0, 1] that vary slowly: bicubic between the numbers of a grid that spans the image."""

    grid: NDArray[np.float32]  # (rows, columns, 1)

    @classmethod
    def draw(cls, height: int, width: int, cell: float, rng: Generator) -> SmoothField:
        """Random numbers about `cell` pixels apart in an image of this size."""
        rows, columns = (max(2, round(size / cell) + 1) for size in (height, width))
        return cls(rng.random((rows, columns, 1), dtype=np.float32))

    def at(self, part: Part) -> Plane:
        """The values in a part of the image, which may have any size."""
        height, width, rows, columns = part
        field = resize(self.grid, height, width, "bicubic", antialias=False, rows=rows, columns=columns)
        return np.clip(field[..., 0], 0, 1)


def scattered(height: int, width: int, shape: Plane, coverage: float, rng: Generator) -> Plane:
    """(height, width) in [0, 1]: copies of `shape` (odd-sized, largest value 1) at random places, half to full strong.

    coverage: the share of the image that they would cover if they did not overlap.
    """
    seeds = rng.random((height + shape.shape[0] - 1, width + shape.shape[1] - 1), dtype=np.float32)
    density = np.float32(min(coverage / float(shape.sum()), 0.5))
    strength = np.where(seeds < density, 1 - seeds / (2 * density), 0).astype(np.float32)
    return np.clip(convolve_inside(strength, shape), 0, 1)
