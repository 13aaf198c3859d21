"""Strokes on photos: holes for inpainting, and scratches of old prints."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from ..arrays import Plane
from .window import Window

__all__ = ["BRUSHES", "Brush", "Thickness", "brush_mask", "scratches"]

_FINE = 4  # scratches are drawn this many times larger, so that they may be thinner than a pixel
_CORNERS = 12  # of a scratch, which starts anywhere and changes direction a little at every one

Thickness: TypeAlias = Literal["thin", "medium", "thick"]


class Brush(NamedTuple):
    """How a mask is painted; lengths are shares of the shorter side, pairs are (lowest, highest)."""

    strokes: tuple[int, int]
    corners: tuple[int, int]  # of one stroke
    step: tuple[float, float]  # from corner to corner
    width: tuple[float, float]
    boxes: tuple[int, int]
    side: tuple[float, float]  # of a box


BRUSHES: dict[Thickness, Brush] = {
    "thin": Brush((4, 10), (3, 8), (0.05, 0.2), (0.01, 0.03), (0, 0), (0, 0)),
    "medium": Brush((2, 6), (3, 6), (0.1, 0.3), (0.04, 0.12), (0, 1), (0.1, 0.3)),
    "thick": Brush((1, 4), (1, 4), (0.15, 0.5), (0.15, 0.35), (0, 2), (0.15, 0.5)),
}


def brush_mask(height: int, width: int, thickness: Thickness, rng: Generator) -> NDArray[np.bool_]:
    """(height, width), True where the photo is missing: brush strokes and boxes, in the manner of LaMa.

    Suvorov et al. (arXiv 2109.07161, section 3.3) paint polygonal chains with a wide brush and rectangles; the sizes
    here are shares of the shorter side, so that a mask covers about as much of a small image as of a large one.
    """
    brush, short = BRUSHES[thickness], min(height, width)
    canvas = Pillow.new("L", (width, height))
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(*brush.strokes, endpoint=True)):
        points = _chain(height, width, brush, rng)
        thick = max(1, round(short * rng.uniform(*brush.width)))
        pen.line(points, 255, thick)
        for x, y in points:  # round corners and ends
            pen.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], 255)
    for _ in range(rng.integers(*brush.boxes, endpoint=True)):
        x, y = rng.uniform((0, 0), (width, height))
        half = short * rng.uniform(*brush.side, 2) / 2
        pen.rectangle([x - half[0], y - half[1], x + half[0], y + half[1]], 255)
    return np.asarray(canvas) > 0


def scratches(window: Window, count: int, length: float, wander: float, rng: Generator) -> Plane:
    """Fine lines in [0, 1], `count` in the whole photo, about `length` pixels long and mostly upright, in a window.

    wander: standard deviation of the direction along the line, in radians; large values look like hairs.
    """
    height, width = window.photo.shape[:2]
    canvas = Pillow.new("L", (_FINE * window.width, _FINE * window.height))
    pen = ImageDraw.Draw(canvas)
    for _ in range(count):
        long = length * rng.uniform(0.3, 1)
        angle = rng.normal(math.pi / 2, 0.15 + wander) + np.cumsum(rng.standard_normal(_CORNERS)) * wander
        steps = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (long / _CORNERS)
        line = np.cumsum(steps, axis=0) + rng.uniform((0, -long / 2), (width, height))
        points = _FINE * (line - (window.left, window.top))
        strength = int(rng.integers(120, 256))
        pen.line([tuple(point) for point in points.tolist()], strength, int(rng.integers(2, _FINE + 3)))
    return np.asarray(canvas.reduce(_FINE), np.float32) / np.float32(255)


def _chain(height: int, width: int, brush: Brush, rng: Generator) -> list[tuple[float, float]]:
    """Corners (x, y) of a stroke, all within the image; it turns back and forth."""
    x, y = rng.uniform((0, 0), (width - 1, height - 1)) if min(height, width) > 1 else (0.0, 0.0)
    points, turn = [(float(x), float(y))], rng.uniform(0, 2 * math.pi)
    for corner in range(rng.integers(*brush.corners, endpoint=True)):
        step = min(height, width) * rng.uniform(*brush.step)
        turn += rng.uniform(0.3, 1.2) * (-1) ** corner
        x = min(max(x + step * math.cos(turn), 0), width - 1)
        y = min(max(y + step * math.sin(turn), 0), height - 1)
        points.append((float(x), float(y)))
    return points
