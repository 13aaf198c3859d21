"""Windows of a photo, damaged exactly as they would be with the whole photo: with their surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.random import Generator

from ..arrays import FloatImage, Image
from .filters import LUMA, gaussian_blur, quantize

__all__ = ["Damage", "ShrinkTask", "Task", "Window", "local", "softened"]

_BLOCK = 16  # pixels: the largest unit of a JPEG, that of 4:2:0
_CHROMA_RADIUS = 2  # pixels over which its decoder interpolates chroma


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
        top, left = (max(0, part.start - margin) // grid * grid for part in self.place)
        bottom, right = (
            min(size, -(-(part.stop + margin) // grid) * grid)
            for part, size in zip(self.place, self.photo.shape, strict=False)
        )
        return Window(self.photo, top, left, bottom - top, right - left, self.grey)

    def blocks(self, times: int = 1) -> Window:
        """Widened to the JPEG blocks that it depends on when its photo is compressed `times` times, on any grid."""
        wide = self
        for _ in range(times):
            wide = wide.widened(_CHROMA_RADIUS + _BLOCK * (times - 1), _BLOCK)
        return wide

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns in the photo."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def pixels(self) -> FloatImage:
        """Its pixels, (height, width, 3) float32 in [0, 1]; a copy."""
        pixels = self.photo[self.place].astype(np.float32, order="C")
        if self.photo.dtype != np.float32:
            pixels /= np.float32(255 if self.photo.dtype == np.uint8 else 65535)
        return quantize(np.repeat((pixels @ LUMA)[..., np.newaxis], 3, axis=2)) if self.grey else pixels

    def cut(self, image: FloatImage, inner: Window) -> FloatImage:
        """The part of `image`, which fills this window, that lies in `inner`."""
        y, x = inner.top - self.top, inner.left - self.left
        return image[y : y + inner.height, x : x + inner.width]


def softened(window: Window, sigma: float) -> FloatImage:
    """A window of a photo that was blurred with a Gaussian of `sigma` pixels."""
    wide = window.widened(int(np.ceil(3 * sigma)))
    return wide.cut(gaussian_blur(wide.pixels(), sigma), window)


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

    small: Callable[[FloatImage, int, Generator], FloatImage]  # with `factor`; not yet rounded to grey levels
    factor: int
    margin: int  # pixels of the large image that matter around one

    def __call__(self, image: FloatImage, rng: Generator) -> FloatImage:
        """Shrink a whole image."""
        return quantize(self.small(image, self.factor, rng))

    def damage(self, window: Window, rng: Generator) -> FloatImage:
        """A window of the shrunk photo, whose pixels start where those of `window` do."""
        down, right = window.top % self.factor, window.left % self.factor
        aligned = replace(window, photo=window.photo[down:, right:], top=window.top - down, left=window.left - right)
        wide = aligned.widened(self.margin, self.factor)
        y, x = (aligned.top - wide.top) // self.factor, (aligned.left - wide.left) // self.factor
        height, width = (-(-side // self.factor) for side in (window.height, window.width))
        return self(wide.pixels(), rng)[y : y + height, x : x + width]
