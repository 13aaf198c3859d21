"""Pictures of a difference: a heat map, and where it is worst, as PNG inside a text."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from ...core.arrays import Image
from .measures import as_unit

__all__ = ["Spot", "distance", "embedded", "heat_map", "worst_spots"]

SPOT = 16  # pixels of the edge of a spot
_HEAT = np.array([[0, 0, 0], [130, 0, 90], [230, 60, 20], [255, 190, 0], [255, 255, 255]], np.float64)


class Spot(NamedTuple):
    """A square of a picture, at a row and a column, and its root mean square difference in levels of 255."""

    row: int
    column: int
    levels: float


def distance(restored: Image, reference: Image) -> NDArray[np.float64]:
    """(H, W): of each pixel the largest difference of a channel, in levels of 255."""
    return 255 * np.abs(as_unit(restored) - as_unit(reference))[0].max(axis=0)


def heat_map(distances: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(H, W, 3): black where there is no difference, white at the largest."""
    largest = distances.max()
    place = distances / largest * (len(_HEAT) - 1) if largest > 0 else np.zeros_like(distances)
    stops = np.arange(len(_HEAT))
    return np.stack([np.interp(place, stops, _HEAT[:, c]) for c in range(3)], axis=-1).astype(np.uint8)


def worst_spots(distances: NDArray[np.float64], count: int) -> list[Spot]:
    """The squares of a grid that are furthest off, worst first; fewer where the picture has fewer."""
    spots = [
        Spot(y, x, float(np.sqrt(np.mean(np.square(distances[y : y + SPOT, x : x + SPOT])))))
        for y in range(0, distances.shape[0], SPOT)
        for x in range(0, distances.shape[1], SPOT)
    ]
    return sorted(spots, key=lambda spot: -spot.levels)[:count]


def embedded(picture: Image) -> str:
    """A picture (H, W, 3) as the address of a PNG that is in the address."""
    levels = picture if picture.dtype == np.uint8 else (picture // np.uint16(257)).astype(np.uint8)
    content = BytesIO()
    Pillow.fromarray(np.ascontiguousarray(levels)).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
