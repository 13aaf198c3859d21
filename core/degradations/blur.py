"""Blur: kernels (odd-sized squares of weights with sum 1), and blur that varies over the image.

Blur that varies is motion during the exposure, and distance from the plane of focus. Both work on linear light, which
is what the sensor adds up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..arrays import FloatImage, Plane
from .filters import convolve

__all__ = ["defocused", "disc", "drift", "gaussian", "moved", "path_kernel", "plateau", "shake", "sinc"]

_Path = NDArray[np.float64]  # (_INSTANTS, 2): y, x in pixels, equally spaced in time
_INSTANTS = 128


def disc(radius: float) -> Plane:
    """A point out of focus: a disc of `radius` pixels with an edge one pixel wide."""
    half = math.ceil(radius)
    offsets = np.arange(-half, half + 1)
    return _normalized(np.clip(radius + 0.5 - np.hypot(offsets, offsets[:, np.newaxis]), 0, 1))


def gaussian(size: int, sigma: tuple[float, float], angle: float, shape: float = 1.0) -> Plane:
    """exp(-d**shape / 2), d the squared distance: a Gaussian; pointed for shape < 1, flat-topped for shape > 1.

    Its standard deviations are `sigma` (pixels) along its axes, the first at `angle` (radians).
    """
    return _normalized(np.exp(-0.5 * _distance(size, sigma, angle) ** shape))


def plateau(size: int, sigma: tuple[float, float], angle: float, shape: float) -> Plane:
    """1 / (1 + d**shape) of the squared distance d: a flat middle with long tails."""
    return _normalized(1 / (1 + _distance(size, sigma, angle) ** shape))


def sinc(size: int, cutoff: float) -> Plane:
    """Circular low-pass filter, which rings as sharpening does: c * J1(c * r) / (2 pi r), c in radians per pixel."""
    offsets = np.arange(size // 2 + 1)
    radius = np.hypot(offsets, offsets[:, np.newaxis])
    quarter = cutoff * _bessel_j1(cutoff * radius) / (2 * np.pi * np.maximum(radius, 1))
    quarter[0, 0] = cutoff**2 / (4 * np.pi)
    mirrored = np.abs(np.arange(size) - size // 2)
    return _normalized(quarter[np.ix_(mirrored, mirrored)])


def shake(length: float, restlessness: float, rng: Generator) -> _Path:
    """The path of a hand-held camera, `length` pixels long: its direction and speed vary at random.

    restlessness: standard deviation of the turn over the whole exposure, in radians; 0 is a straight line.
    """
    turns = rng.standard_normal(_INSTANTS) * restlessness / math.sqrt(_INSTANTS)
    angle = rng.uniform(0, 2 * math.pi) + np.cumsum(turns)
    pace = np.exp(np.cumsum(rng.standard_normal(_INSTANTS)) * (0.8 / math.sqrt(_INSTANTS)))
    steps = np.stack([np.sin(angle), np.cos(angle)], axis=1) * pace[:, np.newaxis]
    return np.cumsum(steps, axis=0) * (length / pace.sum())


def drift(length: float, rng: Generator) -> _Path:
    """Steady motion along a line of `length` pixels, as of an object that moves through the image."""
    angle = rng.uniform(0, 2 * math.pi)
    return np.linspace(0, length, _INSTANTS)[:, np.newaxis] * np.array([math.sin(angle), math.cos(angle)])


def path_kernel(path: _Path, size: int) -> Plane:
    """The blur of a path: (size, size), adds up to 1. Centred on its mean; what lies beyond `size` is pulled in.

    Each instant is spread over the four pixels around it.
    """
    middle = size // 2
    at = np.clip(path - path.mean(axis=0), -middle, middle) + middle
    first = np.minimum(at.astype(np.intp), max(size - 2, 0))
    part = at - first
    kernel = np.zeros((size + 1, size + 1))
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
            np.add.at(kernel, (first[:, 0] + dy, first[:, 1] + dx), weight)
    return (kernel[:size, :size] / kernel[:size, :size].sum()).astype(np.float32)


def moved(linear: FloatImage, regions: Sequence[tuple[Plane, Plane]]) -> FloatImage:
    """Blur each region (its share of every pixel, its kernel) on its own; the shares add up to 1. (H, W, 3)."""
    out = np.zeros_like(linear)
    for share, kernel in regions:
        out += share[..., np.newaxis] * convolve(linear, kernel)
    return out


def defocused(linear: FloatImage, depth: Plane, radii: Sequence[float]) -> FloatImage:
    """Blur by distance; near things cover far ones. (H, W, 3).

    depth: in [0, 1], larger is farther. It is cut into equal layers, one for each of `radii` (of the discs, in pixels),
    nearest first. Each layer is blurred together with its coverage, then all are composed from far to near. What an
    edge hides is not in the photo: the visible part of the layer stands in for it, so that near things in focus keep
    clean outlines.
    """
    slices = np.minimum((depth * len(radii)).astype(np.intp), len(radii) - 1)
    result = np.zeros((*depth.shape, 4), np.float32)
    for index, radius in reversed(list(enumerate(radii))):
        inside = slices == index
        if inside.any():
            share = inside[..., np.newaxis].astype(np.float32)
            layer = np.concatenate([linear * share, share], axis=2)  # light and coverage
            if radius >= 0.5:
                layer = np.maximum(convolve(layer, disc(radius)), 0)
            result = layer + (1 - layer[..., 3:]) * result
    return (result[..., :3] / np.maximum(result[..., 3:], 1e-3)).astype(np.float32)


def _distance(size: int, sigma: tuple[float, float], angle: float) -> NDArray[np.float64]:
    """Squared distance from the middle, in standard deviations."""
    offsets = np.arange(size) - size // 2
    y, x = offsets[:, np.newaxis], offsets
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    return (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2


def _bessel_j1(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bessel's integral by the trapezoidal rule, exact to rounding for |x| < 60 because the integrand is periodic."""
    turn = (np.arange(96) + 0.5) * (np.pi / 96)
    return np.cos(turn - x[..., np.newaxis] * np.sin(turn)).mean(axis=-1)


def _normalized(kernel: NDArray[np.float64]) -> Plane:
    return (kernel / kernel.sum()).astype(np.float32)
