"""Blur that varies over the picture: motion during the exposure, and distance from the plane of focus.

Both work on linear light, as the sensor does that adds it up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from . import kernels
from .filters import convolve
from .light import Plane

__all__ = ["defocused", "drift", "moved", "path_kernel", "shake"]

Path = NDArray[np.float64]  # (instants, 2): y, x in pixels, equally spaced in time


def shake(length: float, restlessness: float, rng: Generator, instants: int = 128) -> Path:
    """The path of a hand-held camera, `length` pixels long: it turns at random, and hurries and lingers.

    restlessness: standard deviation of the turn over the whole exposure, in radians; 0 is a straight line.
    """
    turns = rng.standard_normal(instants) * restlessness / math.sqrt(instants)
    angle = rng.uniform(0, 2 * math.pi) + np.cumsum(turns)
    pace = np.exp(np.cumsum(rng.standard_normal(instants)) * (0.8 / math.sqrt(instants)))
    steps = np.stack([np.sin(angle), np.cos(angle)], axis=1) * pace[:, np.newaxis]
    return np.cumsum(steps, axis=0) * (length / pace.sum())


def drift(length: float, rng: Generator, instants: int = 128) -> Path:
    """Steady motion along a line of `length` pixels, as of a thing that moves through the picture."""
    angle = rng.uniform(0, 2 * math.pi)
    return np.linspace(0, length, instants)[:, np.newaxis] * np.array([math.sin(angle), math.cos(angle)])


def path_kernel(path: Path, size: int) -> Plane:
    """The blur of a path: (size, size), adds up to 1. Centred on its mean; what reaches beyond `size` is pulled in.

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


def moved(light: NDArray[np.float32], regions: Sequence[tuple[Plane, Plane]]) -> NDArray[np.float32]:
    """Blur each region (its share of every pixel, its kernel) on its own; the shares add up to 1. (H, W, 3)."""
    out = np.zeros_like(light)
    for share, kernel in regions:
        out += share[..., np.newaxis] * convolve(light, kernel)
    return out


def defocused(light: NDArray[np.float32], depth: Plane, radii: Sequence[float]) -> NDArray[np.float32]:
    """Blur by distance; what is nearer covers what is behind. (H, W, 3).

    depth: in [0, 1], larger is farther. It is cut into equal layers, one for each of `radii`, nearest first: the discs,
    in pixels, by which they are blurred with their coverage, before they are laid over one another from far to near.
    What hides behind an edge is not in the photo: there the visible part of the layer stands for it, so that near
    things in focus keep clean outlines.
    """
    slices = np.minimum((depth * len(radii)).astype(np.intp), len(radii) - 1)
    result = np.zeros((*depth.shape, 4), np.float32)
    for index, radius in reversed(list(enumerate(radii))):
        inside = slices == index
        if inside.any():
            layer = _layer(light, inside, radius)
            result = layer + (1 - layer[..., 3:]) * result
    return (result[..., :3] / np.maximum(result[..., 3:], 1e-3)).astype(np.float32)


def _layer(light: NDArray[np.float32], inside: NDArray[np.bool_], radius: float) -> NDArray[np.float32]:
    """Light and coverage of one layer out of focus: (H, W, 4)."""
    share = inside[..., np.newaxis].astype(np.float32)
    layer = np.concatenate([light * share, share], axis=2)
    return layer if radius < 0.5 else np.maximum(convolve(layer, kernels.disc(radius)), 0)
