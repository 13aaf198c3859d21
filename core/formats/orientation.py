"""The eight EXIF orientations: as views of arrays and as Pillow transpositions."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from PIL.Image import Transpose

__all__ = ["TRANSPOSES", "swaps_sides", "unturned"]

TRANSPOSES = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def swaps_sides(orientation: int) -> bool:
    """Whether width and height change places."""
    return orientation >= 5


def unturned(upright: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of an upright picture (H, W, ...) as the file stores it: writing stored rows there turns them.

    EXIF 2.32, tag 0x0112: the orientation names where the stored first row and column are in the upright picture.
    """
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1]
    if orientation in (3, 4, 7, 8):
        upright = upright[::-1]
    return upright.swapaxes(0, 1) if swaps_sides(orientation) else upright
