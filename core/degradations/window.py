"""Windows of a photo, damaged exactly as they would be with the whole photo: with their surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.random import Generator

from ..arrays import FloatImage, Image
from .encoding import LUMA, quantize

__all__ = ["Damage", "Part", "ShrinkTask", "Task", "Window", "local"]

_BLOCK = 16  # pixels: the largest unit of a JPEG, that of 4:2:0
_CHROMA_RADIUS = 2  # pixels over which its decoder interpolates chroma


class Part(NamedTuple):
    """Some rows and columns of an image of `height` x `width`."""

    height: int
    width: int
    rows: slice
    columns: slice

    @classmethod
    def whole(cls, height: int, width: int) -> Part:
        """All of it."""
        return cls(height, width, slice(0, height), slice(0, width))


@dataclass(frozen=True)
class Window:
    """A rectangle of `photo`, (H, W, 3) of uint8, uint16 or float32 in [0, 1]; with `grey`, of its luma."""

    photo: Image | FloatImage
    top: int
    left: int
    height: int
    width: int
    grey: bool = False

    @classmethod
    def whole(cls, photo: Image | FloatImage) -> Window:
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

    def blocks(self, times: int = 1) -> Window:
        """Widened to the JPEG blocks that it depends on when its photo is compressed `times` times, on any grid."""
        wide = self
        for _ in range(times):
            wide = wide.widened(_CHROMA_RADIUS + _BLOCK * (times - 1), _BLOCK)
        return wide

    @property
    def part(self) -> Part:
        """Where it lies in the photo."""
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        height, width = self.photo.shape[:2]
        return Part(height, width, rows, columns)

    def pixels(self) -> FloatImage:
        """Its pixels, (height, width, 3) float32 in [0, 1]; a copy."""
        part = self.part
        pixels = self.photo[part.rows, part.columns].astype(np.float32, order="C")
        if self.photo.dtype != np.float32:
            pixels /= np.float32(255 if self.photo.dtype == np.uint8 else 65535)
        return quantize(np.repeat((pixels @ LUMA)[..., np.newaxis], 3, axis=2)) if self.grey else pixels

    def cut(self, image: FloatImage, inner: Window) -> FloatImage:
        """The part of `image`, which fills this window, that lies in `inner`."""
        y, x = inner.top - self.top, inner.left - self.left
        return image[y : y + inner.height, x : x + inner.width]


Damage: TypeAlias = Callable[[Window, Generator], FloatImage]  # -> (window.height, window.width, 3)


@dataclass(frozen=True)
class Task:
    """What a model learns to undo. `damage` returns a window of the damaged photo."""

    damage: Damage

    def __call__(self, image: FloatImage, rng: Generator) -> FloatImage:
        """Damage a whole image, (H, W, 3) float32 in [0, 1]."""
        return self.damage(Window.whole(image), rng)


def local(damage: Callable[[FloatImage, Generator], FloatImage], margin: int = 0, grid: int = 1) -> Task:
    """The task of a damage that reads only pixels nearer than `margin`, in blocks of `grid` from the corner."""

    def inside(window: Window, rng: Generator) -> FloatImage:
        wide = window.widened(margin, grid)
        return wide.cut(damage(wide.pixels(), rng), window)

    return Task(inside)


@dataclass(frozen=True)
class ShrinkTask:
    """Damage that leaves an image `factor` times smaller: (H, W, 3) -> (ceil(H / factor), ceil(W / factor), 3)."""

    small: Callable[[FloatImage, Generator], FloatImage]
    factor: int
    margin: int  # pixels of the large image that matter around one

    def __call__(self, image: FloatImage, rng: Generator) -> FloatImage:
        """ShrinkTask a whole image."""
        return self.small(image, rng)

    def damage(self, window: Window, rng: Generator) -> FloatImage:
        """A window of the shrunk photo, whose pixels start where those of `window` do."""
        down, right = window.top % self.factor, window.left % self.factor
        aligned = replace(window, photo=window.photo[down:, right:], top=window.top - down, left=window.left - right)
        wide = aligned.widened(self.margin, self.factor)
        y, x = (aligned.top - wide.top) // self.factor, (aligned.left - wide.left) // self.factor
        height, width = (-(-side // self.factor) for side in (window.height, window.width))
        return self.small(wide.pixels(), rng)[y : y + height, x : x + width]
