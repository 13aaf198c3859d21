"""A part of a photo that is to be damaged as if the whole photo had been: with what surrounds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .light import LUMA, Picture, quantize

__all__ = ["Damage", "Task", "Window", "local"]


@dataclass(frozen=True)
class Window:
    """A rectangle of `photo`, (H, W, 3) uint8 or float32 in [0, 1]; with `grey`, of its luma."""

    photo: NDArray[np.uint8] | Picture
    top: int
    left: int
    height: int
    width: int
    grey: bool = False

    @classmethod
    def whole(cls, photo: NDArray[np.uint8] | Picture) -> Window:
        """The window that shows all of a photo."""
        return cls(photo, 0, 0, photo.shape[0], photo.shape[1])

    def widened(self, margin: int, grid: int = 1) -> Window:
        """With `margin` more pixels on every side, then out to multiples of `grid`; the photo's border limits it."""
        top, left = (max(0, at - margin) // grid * grid for at in (self.top, self.left))
        bottom, right = (
            min(size, -(-(at + side + margin) // grid) * grid)
            for at, side, size in zip(
                (self.top, self.left), (self.height, self.width), self.photo.shape[:2], strict=True
            )
        )
        return Window(self.photo, top, left, bottom - top, right - left, self.grey)

    def pixels(self) -> Picture:
        """Its pixels, (height, width, 3) float32 in [0, 1]; a copy."""
        part = self.photo[self.top : self.top + self.height, self.left : self.left + self.width]
        pixels = part.astype(np.float32)
        if part.dtype == np.uint8:
            pixels /= np.float32(255)
        return quantize(np.repeat((pixels @ LUMA)[..., np.newaxis], 3, axis=2)) if self.grey else pixels

    def cut(self, picture: Picture, inner: Window) -> Picture:
        """The part of `picture`, which fills this window, that lies in `inner`."""
        y, x = inner.top - self.top, inner.left - self.left
        return picture[y : y + inner.height, x : x + inner.width]


Damage: TypeAlias = Callable[[Window, Generator], Picture]  # -> (window.height, window.width, 3)


@dataclass(frozen=True)
class Task:
    """What a model learns to undo. `damage` returns a window of the damaged photo."""

    damage: Damage

    def __call__(self, picture: Picture, rng: Generator) -> Picture:
        """Damage a whole picture, (H, W, 3) float32 in [0, 1]."""
        return self.damage(Window.whole(picture), rng)


def local(damage: Callable[[Picture, Generator], Picture], margin: int = 0, grid: int = 1) -> Task:
    """The task of a damage to which only pixels nearer than `margin` matter, in blocks of `grid` from the corner."""

    def inside(window: Window, rng: Generator) -> Picture:
        wide = window.widened(margin, grid)
        return wide.cut(damage(wide.pixels(), rng), window)

    return Task(inside)
