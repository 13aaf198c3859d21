"""The sizes of tiles that a pack's graphs take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .rules import require

__all__ = ["FEATHER", "Size", "TileWindow", "padded_size", "smallest_tile"]

FEATHER = 16  # pixels over which one tile turns into the next


class TileWindow(NamedTuple):
    """The only tiles that a graph is run on, because it sees all of its tile or takes no other size."""

    edge: int  # of a tile in pixels, or the padded photo's own edge where that is shorter
    overlap: int  # of neighbouring tiles, in pixels


@dataclass(frozen=True)
class Size:
    """The heights and widths that the graphs take. Raises PackError for numbers that contradict each other."""

    multiple_of: int  # every height and width is a multiple of this
    minimum: int  # the smallest height and width, in pixels
    fixed: bool = False  # whether `minimum` is the only one

    def __post_init__(self) -> None:
        require(self.multiple_of >= 1, "multiple_of", self.multiple_of, "1 or more")
        fits = self.minimum >= 1 and self.minimum % self.multiple_of == 0
        require(fits, "minimum", self.minimum, f"a multiple of {self.multiple_of}")

    def takes(self, window: TileWindow) -> bool:
        """Whether a photo can be cut into the tiles of this window."""
        fits = window.edge == self.minimum if self.fixed else window.edge % self.multiple_of == 0
        return window.overlap >= 0 and window.edge >= self._smallest(window) and fits

    def expected(self, window: TileWindow) -> str:
        """What a window with this overlap must be, for a message."""
        edge = f"exactly {self.minimum}" if self.fixed else f"a multiple of {self.multiple_of}"
        return f"[edge, overlap], an edge of {self._smallest(window)} or more, {edge}"

    def smallest_tile(self, overlap: int) -> int:
        """Edge in pixels of the smallest useful tile with this overlap, whatever the minimum."""
        return smallest_tile(max(0, overlap), self.multiple_of)

    def _smallest(self, window: TileWindow) -> int:
        return max(self.smallest_tile(window.overlap), self.minimum)


def padded_size(size: int, multiple: int, minimum: int = 0) -> int:
    """`size` rounded up to a multiple of `multiple`, `minimum` at least."""
    return max(-(-size // multiple) * multiple, minimum)


def smallest_tile(overlap: int, multiple: int) -> int:
    """Edge in pixels of the smallest useful tile: one that has pixels of its own between its two overlaps."""
    return padded_size(2 * overlap + FEATHER + multiple, multiple)
