"""Rain, snow, haze and raindrops on the pane, the depth that haze and defocus need, and random fields over an image.

Scenes are in linear light, (H, W, 3). Drops show the scene once more, upside down and small. One photo does not show
its depth, so a plausible one is made up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..arrays import FloatImage, Plane
from . import blur
from .filters import Kernel, blend, convolve, convolve_inside, gaussian_blur, mirrored, resize, sample, srgb_to_linear
from .window import Window

__all__ = [
    "Drop",
    "depth_map",
    "draw_drop",
    "flake",
    "hazed",
    "lit",
    "refracted",
    "scattered",
    "screened",
    "smooth_field",
    "streak",
]

Map: TypeAlias = Callable[[Window], Plane]  # a number per pixel, for any window of a photo

_BLUR = 2.0  # pixels, of the scene in a drop: out of focus, and shown smaller
_FOOTPRINT = 1.4  # how far a drop's soft edge extends, in radii of its discs

_STRIDE = 4  # the photo is read at every fourth pixel
_CUE_CELL = 2  # of those, over which brightness is averaged


def streak(length: float, width: float, angle: float) -> Plane:
    """The trace of one raindrop: largest value 1, `length` and `width` in pixels, `angle` (radians) from the vertical.

    Its ends fade, its profile is a Gaussian of full width `width` at half height.
    """
    radius = math.ceil(length / 2 + width)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    along = y * math.cos(angle) + x * math.sin(angle)
    across = x * math.cos(angle) - y * math.sin(angle)
    taper = np.clip(1 - (2 * np.abs(along) / length) ** 4, 0, 1)
    trace = np.exp(-4 * math.log(2) * (across / width) ** 2) * taper
    wide = math.ceil(radius * abs(math.sin(angle)) + width + 1)  # cut the empty margin: the filter is faster
    margin = max(radius - wide, 0)
    return trace[:, margin : trace.shape[1] - margin].astype(np.float32)


def flake(radius: float, motion: float, angle: float) -> Plane:
    """A snowflake that falls: a soft disc of `radius` pixels drawn out over `motion` pixels; largest value 1."""
    half = math.ceil(motion / 2)
    disc = blur.disc(radius)
    room = np.pad(disc, math.ceil(radius / 4) + half)
    soft = convolve(room, blur.gaussian(2 * math.ceil(radius / 2) + 3, (radius / 3, radius / 3), 0.0))
    drawn = np.clip(convolve(soft, streak(motion, 1.0, angle)) if motion >= 1 else soft, 0, None)
    return drawn / drawn.max()


def screened(linear: FloatImage, layers: list[tuple[Plane, float]]) -> FloatImage:
    """Streaks of light over a scene, each (mask, brightness in linear light): 1 - (1 - J) * prod(1 - b * M)."""
    dark = 1 - linear.astype(np.float64)
    for mask, brightness in layers:
        dark *= 1 - brightness * mask[..., np.newaxis]
    return (1 - dark).astype(np.float32)


def lit(linear: FloatImage, masks: list[tuple[Plane, float]]) -> FloatImage:
    """Light added without limit, each (mask, brightness): J + sum of b * M, the heavy rain of Li et al. (CVPR 2019)."""
    out = linear.copy()
    for mask, brightness in masks:
        out += np.float32(brightness) * mask[..., np.newaxis]
    return out


def hazed(linear: FloatImage, transmission: Plane, airlight: NDArray[np.float32]) -> FloatImage:
    """Koschmieder's law: I = J * t + A * (1 - t); t (H, W) and A (3,) in [0, 1]."""
    return blend(airlight, linear, transmission[..., np.newaxis])


class Drop(NamedTuple):
    """A drop of merged discs: rows (y, x, radius) in pixels. It shows the scene `minified` times smaller."""

    discs: NDArray[np.float64]
    minified: float
    softness: float  # width of its edge, as a share of its radius

    @property
    def centre(self) -> tuple[float, float]:
        """Mean position of its discs, weighted by their areas."""
        areas = self.discs[:, 2] ** 2
        y, x = (areas[:, np.newaxis] * self.discs[:, :2]).sum(axis=0) / areas.sum()
        return float(y), float(x)

    @property
    def radius(self) -> float:
        """Distance from the centre to the farthest rim."""
        away = np.hypot(*(self.discs[:, :2] - self.centre).T)
        return float((away + self.discs[:, 2]).max())


def draw_drop(height: int, width: int, radius: tuple[float, float], rng: Generator) -> Drop:
    """A drop somewhere in the image: one large disc and up to four smaller ones that overlap it, mostly below."""
    largest = rng.uniform(*radius)
    first = (rng.uniform(0, height), rng.uniform(0, width), largest)
    discs = [first]
    for _ in range(rng.integers(5)):
        angle, size = rng.normal(math.pi / 2, 1.0), largest * rng.uniform(0.4, 0.9)
        away = rng.uniform(0.5, 1.0) * largest
        discs.append((first[0] + away * math.sin(angle), first[1] + away * math.cos(angle), size))
    return Drop(np.array(discs), rng.uniform(2, 6), rng.uniform(0.1, 0.35))


def refracted(window: Window, drops: list[Drop]) -> NDArray[np.float32]:
    """Linear light of a window of a photo seen through `drops`, in the order given.

    A drop, placed in the photo, shows it flipped, minified and blurred, with soft edges.
    """
    out = srgb_to_linear(window.pixels())
    corner = np.array((window.top, window.left))
    for drop in drops:
        margin = _FOOTPRINT * drop.discs[:, 2:]
        low = np.floor((drop.discs[:, :2] - margin).min(axis=0)).astype(int)
        high = np.ceil((drop.discs[:, :2] + margin).max(axis=0)).astype(int) + 1
        top, left = np.maximum(low, corner)
        bottom, right = np.minimum(high, corner + out.shape[:2])
        if top < bottom and left < right:
            y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
            share = _share(drop, y, x)[..., np.newaxis]
            place = np.s_[top - window.top : bottom - window.top, left - window.left : right - window.left]
            out[place] = blend(out[place], _inside(window, drop, y, x), share)
    return out


def depth_map(window: Window, rng: Generator) -> Plane:
    """(height, width) in [0, 1]: the depth of a window, where the photo's nearest point has 0 and its farthest 1.

    A ground that recedes upwards, hills of smooth noise, brightness (skies and far air are bright), and for two
    images of three something dark in front. The whole photo is looked at, coarsely.
    """
    height, width = window.photo.shape[:2]
    seen = Window.whole(window.photo[::_STRIDE, ::_STRIDE]).pixels().mean(axis=2, keepdims=True, dtype=np.float32)
    rows, columns = (-(-size // _CUE_CELL) for size in seen.shape[:2])
    bright = resize(seen, rows, columns, "area", antialias=True)
    depth = _scene(height, width, bright, rng)
    everywhere = depth(Window.whole(bright))
    low, high = float(everywhere.min()), float(everywhere.max())
    return np.clip((depth(window) - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def smooth_field(height: int, width: int, cell: float, rng: Generator) -> Map:
    """Values in [0, 1] that vary slowly: bicubic between random numbers about `cell` pixels apart.

    They span an image of this size; windows may belong to that image at any other size.
    """
    rows, columns = (max(2, round(size / cell) + 1) for size in (height, width))
    grid = rng.random((rows, columns, 1), dtype=np.float32)
    return lambda window: np.clip(_stretched(grid, window, "bicubic"), 0, 1)


def scattered(height: int, width: int, shape: Plane, coverage: float, rng: Generator) -> Plane:
    """(height, width) in [0, 1]: copies of `shape` (odd-sized, largest value 1) at random places, half to full strong.

    coverage: the share of the image that they would cover if they did not overlap.
    """
    seeds = rng.random((height + shape.shape[0] - 1, width + shape.shape[1] - 1), dtype=np.float32)
    density = np.float32(min(coverage / float(shape.sum()), 0.5))
    strength = np.where(seeds < density, 1 - seeds / (2 * density), 0).astype(np.float32)
    return np.clip(convolve_inside(strength, shape), 0, 1)


def _share(drop: Drop, y: Plane, x: Plane) -> Plane:
    """How much of each pixel the drop covers. Bumps of the discs add up, so that neighbours merge smoothly."""
    height = np.zeros(y.shape, np.float32)
    for cy, cx, radius in drop.discs:
        distance = ((y - np.float32(cy)) ** 2 + (x - np.float32(cx)) ** 2) / np.float32(radius**2)
        height += np.exp(np.float32(math.log(2)) * (1 - distance)) / 2  # 1/2 on the rim of a lone disc
    steep = np.clip((height - 0.5) / drop.softness + 0.5, 0, 1)
    return (steep * steep * (3 - 2 * steep)).astype(np.float32)


def _inside(window: Window, drop: Drop, y: Plane, x: Plane) -> NDArray[np.float32]:
    """The scene as the drop shows it: turned upside down, around its centre; darker towards the upper rim.

    Beyond the photo's edge the scene is not known: the view is moved inside, and minified no more than fits.
    """
    radius, (height, width) = drop.radius, window.photo.shape[:2]
    minified = max(1.0, min(drop.minified, min(height, width) / (2 * radius)))
    cy, cx = (np.float32(at) for at in drop.centre)
    my, mx = (_within(at, minified * radius, size) for at, size in zip(drop.centre, (height, width), strict=True))
    seen = _blurred(window, my - np.float32(minified) * (y - cy), mx - np.float32(minified) * (x - cx))
    rim = np.clip((cy - y) / np.float32(2 * radius), 0, 1)[..., np.newaxis]
    return (seen * (1 - 0.7 * rim)).astype(np.float32)


def _blurred(window: Window, y: Plane, x: Plane) -> NDArray[np.float32]:
    """Light of the blurred photo at positions y, x, which may lie outside it by little: its edge is mirrored."""
    height, width = window.photo.shape[:2]
    y, x = mirrored(y, height), mirrored(x, width)
    top, left = int(y.min()), int(x.min())
    seen = replace(window, top=top, left=left, height=int(y.max()) + 2 - top, width=int(x.max()) + 2 - left)
    wide = seen.widened(math.ceil(3 * _BLUR), 2)
    blurred = gaussian_blur(_halved(srgb_to_linear(wide.pixels())), _BLUR / 2)
    two = np.float32(2)  # in the blurred photo, pixels are twice as large
    return sample(blurred, (y - np.float32(wide.top + 0.5)) / two, (x - np.float32(wide.left + 0.5)) / two)


def _halved(linear: FloatImage) -> FloatImage:
    """Means of 2 x 2 pixels; the last row and column are repeated where one is missing."""
    height, width = (size + size % 2 for size in linear.shape[:2])
    even = np.pad(linear, ((0, height - linear.shape[0]), (0, width - linear.shape[1]), (0, 0)), mode="edge")
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / np.float32(4)


def _within(at: float, margin: float, size: int) -> np.float32:
    """The nearest position that is `margin` away from both ends, the middle where there is none."""
    return np.float32(size / 2 if 2 * margin >= size else min(max(at, margin), size - margin))


def _stretched(grid: FloatImage, window: Window, kernel: Kernel) -> Plane:
    """A grid of numbers (rows, columns, 1) that spans the photo, at the pixels of a window."""
    height, width = window.photo.shape[:2]
    return resize(grid, height, width, kernel, antialias=False, part=window.place)[..., 0]


def _scene(height: int, width: int, bright: FloatImage, rng: Generator) -> Map:
    """The depth of a photo of this size and brightness (rows, columns, 1), before it is stretched to [0, 1]."""
    hills = smooth_field(height, width, max(height, width) / rng.uniform(1.5, 4), rng)
    of_ground, of_hills, of_brightness = rng.dirichlet((2, 1, 1)).astype(np.float32)
    tilt, steepness = rng.uniform(-math.pi / 6, math.pi / 6), rng.uniform(0.7, 2.5)
    thing = _thing(height, width, bright, rng) if rng.random() < 2 / 3 else None

    def ground(window: Window) -> Plane:
        """Rises towards the top, tilted by up to 30 degrees either way, and faster the farther it is."""
        rows, columns = window.place
        up = np.linspace(1, 0, window.photo.shape[0], dtype=np.float32)[rows, np.newaxis]
        across = np.linspace(-0.5, 0.5, window.photo.shape[1], dtype=np.float32)[columns]
        ramp = np.clip(up * np.float32(math.cos(tilt)) + across * np.float32(math.sin(tilt)), 0, 1)
        return (ramp**steepness).astype(np.float32)

    def depth(window: Window) -> Plane:
        brightness = _stretched(bright, window, "bilinear")
        far = of_ground * ground(window) + of_hills * hills(window) + of_brightness * brightness
        return (far if thing is None else far * thing(window, brightness)).astype(np.float32, copy=False)

    return depth


def _thing(height: int, width: int, bright: FloatImage, rng: Generator) -> Callable[[Window, Plane], Plane]:
    """What something in front multiplies depth by: it is where a smooth field less half the brightness is large."""
    nearness, cell = rng.uniform(0.3, 0.8), max(height, width) / rng.uniform(1.5, 5)
    field = smooth_field(height, width, cell, rng)
    edge = float(np.quantile(field(Window.whole(bright)) - bright[..., 0] / 2, rng.uniform(0.6, 0.9)))

    def factor(window: Window, brightness: Plane) -> Plane:
        inside = np.clip((field(window) - brightness / 2 - edge) * 20 + 0.5, 0, 1)
        return 1 - np.float32(nearness) * inside.astype(np.float32)

    return factor
