"""Changing a picture's size: antialiased bicubic as MATLAB's imresize does it, and plainer ways."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .light import Picture

__all__ = ["Kernel", "enlarge", "resize", "shrink"]

Kernel: TypeAlias = Literal["area", "bilinear", "bicubic"]

EVERY = slice(None)
SUPPORT = {"area": 0.5, "bilinear": 1.0, "bicubic": 2.0}  # reach of each kernel, in pixels


def shrink(picture: Picture, factor: int) -> Picture:
    """(H, W, 3) -> (ceil(H / factor), ceil(W / factor), 3): antialiased bicubic. May overshoot [0, 1] slightly."""
    for axis in (0, 1):
        picture = _resampled(picture, axis, -(-picture.shape[axis] // factor), 1 / factor, "bicubic", True)
    return picture


def enlarge(picture: Picture, factor: int) -> Picture:
    """(H, W, 3) -> (factor * H, factor * W, 3): bicubic. May overshoot [0, 1] slightly."""
    for axis in (0, 1):
        picture = _resampled(picture, axis, factor * picture.shape[axis], float(factor), "bicubic", True)
    return picture


def resize(
    picture: Picture,
    height: int,
    width: int,
    kernel: Kernel,
    *,
    antialias: bool,
    rows: slice = EVERY,
    columns: slice = EVERY,
) -> Picture:
    """To any size. Without `antialias` a shrinking kernel is not widened: it samples points, as quick software does.

    rows, columns: the part of the result that is computed, to the same bits as with the whole.
    """
    for axis, (size, part) in enumerate(((height, rows), (width, columns))):
        picture = _resampled(picture, axis, size, size / picture.shape[axis], kernel, antialias, part)
    return picture


def _resampled(
    picture: Picture, axis: int, size: int, scale: float, kernel: Kernel, antialias: bool, part: slice = EVERY
) -> Picture:
    """Resize along one axis, one pass per tap of the kernel."""
    taps = _taps(picture.shape[axis], size, scale, kernel, antialias)
    positions, weights = (each[:, part] for each in taps)  # (taps, size of the part) each
    out = np.zeros((*picture.shape[:axis], positions.shape[1], *picture.shape[axis + 1 :]), np.float32)
    for position, weight in zip(positions, weights, strict=True):
        out += np.take(picture, position, axis) * weight.reshape((-1, 1, 1) if axis == 0 else (-1, 1))
    return out


def _taps(
    length: int, size: int, scale: float, kernel: Kernel, antialias: bool
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each of `size` new samples the old ones (mirrored at the edges) that it is made of, and their weights."""
    stretch = max(1.0, 1 / scale) if antialias else 1.0
    centre = (np.arange(size) + 0.5) / scale - 0.5
    reach = SUPPORT[kernel] * stretch
    count = math.ceil(2 * reach) + 1
    at = np.floor(centre - reach).astype(np.intp) + np.arange(count)[:, np.newaxis]
    weights = _profile((at - centre) / stretch, kernel)
    used = weights.any(axis=1)
    at, weights = at[used], weights[used] / weights.sum(axis=0)
    folded = np.mod(at, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded), weights.astype(np.float32)


def _profile(x: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float64]:
    """The kernel at distances x; bicubic is Keys' with a = -1/2 (IEEE ASSP 29, 1981)."""
    distance = np.abs(x)
    if kernel == "area":
        return ((x > -0.5) & (x <= 0.5)).astype(np.float64)
    if kernel == "bilinear":
        return np.maximum(1 - distance, 0)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance <= 1, near, np.where(distance <= 2, far, 0))
