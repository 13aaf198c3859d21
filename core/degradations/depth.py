"""A plausible distance for every pixel, which haze and defocus need and one photo does not show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ..arrays import FloatImage, Plane
from .filters import resize
from .weather import SmoothField
from .windows import Part, Window

__all__ = ["depth_map"]

_STRIDE = 4  # the photo is read at every fourth pixel
_CUE_CELL = 2  # of those, over which brightness is averaged


def depth_map(window: Window, rng: Generator) -> Plane:
    """(height, width) in [0, 1]: the depth of a window, where the photo's nearest point has 0 and its farthest 1.

    A ground that recedes upwards, hills of smooth noise, brightness (skies and far air are bright), and for two
    images of three something dark in front. The whole photo is looked at, coarsely.
    """
    photo, part = window.photo[::_STRIDE, ::_STRIDE], window.part
    bright = _brightness(Window.whole(photo).pixels())
    coarse = Part.whole(*bright.shape[:2])
    scene = _Scene.draw(part.height, part.width, bright, coarse, rng)
    everywhere = scene.at(coarse)
    low, high = float(everywhere.min()), float(everywhere.max())
    return np.clip((scene.at(part) - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def _brightness(photo: FloatImage) -> FloatImage:
    """Mean of the three channels and of cells of the photo, (rows, columns, 1)."""
    mean = photo.mean(axis=2, keepdims=True, dtype=np.float32)
    rows, columns = (-(-size // _CUE_CELL) for size in photo.shape[:2])
    return resize(mean, rows, columns, "area", antialias=True)


@dataclass(frozen=True)
class _Thing:
    """Something in front, whose outline leans on the image's own: where its field less brightness is large."""

    field: SmoothField
    level: float
    nearness: float

    def at(self, part: Part, bright: Plane) -> Plane:
        """What depth is multiplied by."""
        inside = np.clip((self.field.at(part) - bright / 2 - self.level) * 20 + 0.5, 0, 1)
        return 1 - np.float32(self.nearness) * inside.astype(np.float32)


@dataclass(frozen=True)
class _Scene:
    """Depth as a function of the place in the photo, before it is stretched to [0, 1]."""

    hills: SmoothField
    bright: FloatImage
    shares: tuple[np.float32, ...]  # of ground, hills and brightness
    tilt: float
    steepness: float
    thing: _Thing | None

    @classmethod
    def draw(cls, height: int, width: int, bright: FloatImage, coarse: Part, rng: Generator) -> _Scene:
        longest = max(height, width)
        hills = SmoothField.draw(height, width, longest / rng.uniform(1.5, 4), rng)
        shares = tuple(rng.dirichlet((2, 1, 1)).astype(np.float32))
        tilt, steepness = rng.uniform(-math.pi / 6, math.pi / 6), rng.uniform(0.7, 2.5)
        thing = None
        if rng.random() < 2 / 3:
            nearness, cell = rng.uniform(0.3, 0.8), longest / rng.uniform(1.5, 5)
            field = SmoothField.draw(height, width, cell, rng)
            level = float(np.quantile(field.at(coarse) - bright[..., 0] / 2, rng.uniform(0.6, 0.9)))
            thing = _Thing(field, level, nearness)
        return cls(hills, bright, shares, tilt, steepness, thing)

    def at(self, part: Part) -> Plane:
        height, width, rows, columns = part
        bright = resize(self.bright, height, width, "bilinear", antialias=False, rows=rows, columns=columns)[..., 0]
        ground, hills, brightness = self.shares
        depth = ground * self._ground(part) + hills * self.hills.at(part) + brightness * bright
        return (depth if self.thing is None else depth * self.thing.at(part, bright)).astype(np.float32, copy=False)

    def _ground(self, part: Part) -> Plane:
        """Rises towards the top, tilted by up to 30 degrees either way, and faster the farther it is."""
        up = np.linspace(1, 0, part.height, dtype=np.float32)[part.rows, np.newaxis]
        across = np.linspace(-0.5, 0.5, part.width, dtype=np.float32)[part.columns]
        ramp = np.clip(up * np.float32(math.cos(self.tilt)) + across * np.float32(math.sin(self.tilt)), 0, 1)
        return (ramp**self.steepness).astype(np.float32)
