"""The ageing of a print: grain, casts and scratches. Images are (H, W, 3) in [0, 1]."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from ..arrays import FloatImage, Plane
from .encoding import LUMA, blend
from .filters import gaussian_blur
from .window import Part

__all__ = ["grained", "scratches", "toned"]

_FINE = 4  # lines are drawn this many times larger, so that they may be thinner than a pixel


def toned(image: FloatImage, colour: NDArray[np.float32], amount: float) -> FloatImage:
    """Mix with its own grey version in a tone, such as sepia: `colour` (3,) is what white becomes; amount 0 to 1."""
    grey = (image @ LUMA)[..., np.newaxis]
    return blend(image, grey * colour, np.float32(amount))


def grained(image: FloatImage, sigma: float, size: float, rng: Generator) -> FloatImage:
    """Film grain: grey noise of `sigma` (share of white), clumps of `size` pixels; most in mid tones. Not clipped."""
    clumps = gaussian_blur(rng.standard_normal(image.shape[:2], dtype=np.float32), size)
    strength = np.float32(sigma / max(float(clumps.std()), 1e-6))
    grey = np.clip(image @ LUMA, 0, 1)
    visible = (4 * grey * (1 - grey) + 0.2) / 1.2
    return (image + (strength * clumps * visible)[..., np.newaxis]).astype(np.float32)


def scratches(part: Part, count: int, length: float, wander: float, rng: Generator) -> Plane:
    """Fine lines in [0, 1], `count` in the whole image, about `length` pixels long and mostly upright, in a part of it.

    wander: standard deviation of the direction along the line, in radians; large values look like hairs.
    """
    height, width, rows, columns = part
    canvas = Pillow.new("L", (_FINE * (columns.stop - columns.start), _FINE * (rows.stop - rows.start)))
    pen = ImageDraw.Draw(canvas)
    for _ in range(count):
        line = _wandering(height, width, length * rng.uniform(0.3, 1), wander, rng)
        points = _FINE * (line - (columns.start, rows.start))
        strength = int(rng.integers(120, 256))
        pen.line([tuple(point) for point in points.tolist()], strength, int(rng.integers(2, _FINE + 3)))
    small = canvas.reduce(_FINE)
    return np.asarray(small, np.float32) / np.float32(255)


def _wandering(height: int, width: int, length: float, wander: float, rng: Generator) -> NDArray[np.float64]:
    """Corners (x, y) of a line that starts anywhere and changes direction a little at every corner."""
    corners = 12
    angle = rng.normal(math.pi / 2, 0.15 + wander) + np.cumsum(rng.standard_normal(corners)) * wander
    steps = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (length / corners)
    return np.cumsum(steps, axis=0) + rng.uniform((0, -length / 2), (width, height))
