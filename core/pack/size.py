"""The sizes of tiles that a pack's graphs take."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FEATHER", "TileWindow", "padded_size", "smallest_tile"]

FEATHER = 16  # pixels over which one tile turns into the next


class TileWindow(NamedTuple):
    """The only tiles that a graph is run on, because it sees all of its tile or takes no other size.

    Attributes:
        edge: Of the tile, in pixels, or the padded photo's own edge where that is shorter.
        overlap: Of neighbouring tiles, in pixels.
    """

    edge: int
    overlap: int


def padded_size(size: int, multiple: int, minimum: int = 0) -> int:
    """`size` rounded up to a multiple of `multiple`, `minimum` at least."""
    return max(-(-size // multiple) * multiple, minimum)


def smallest_tile(overlap: int, multiple: int) -> int:
    """Edge in pixels of the smallest useful tile: one that has pixels between its two overlaps."""
    return padded_size(2 * overlap + FEATHER + multiple, multiple)
