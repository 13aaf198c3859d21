"""The sizes at which ops are tested and timed: one list serves both."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LARGE", "SMALL", "Case"]


@dataclass(frozen=True)
class Case:
    """One input of `n` pictures of `channels` x `height` x `width`."""

    n: int
    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.n}x{self.channels}x{self.height}x{self.width}"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self.n, self.channels, self.height, self.width


# One pixel; odd sizes with borders on all sides; more than one tile; channels that are no power of two.
SMALL = (Case(1, 16, 1, 1), Case(2, 16, 5, 7), Case(1, 32, 11, 13), Case(1, 24, 9, 3))
# What is timed: batch 8 as in training, batch 1 as in restoring.
LARGE = tuple(Case(n, channels, 256, 256) for n in (8, 1) for channels in (32, 64, 128))
