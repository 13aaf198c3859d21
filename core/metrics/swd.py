"""Texture distance without a trained network: sliced Wasserstein distance of Laplacian-pyramid patches.

After Karras et al., "Progressive Growing of GANs" (ICLR 2018, section 5 and appendix B), as a comparison of one
restored photo with its true photo. Each pyramid octave holds the detail of one octave; its 7 x 7 x 3 patches form a
cloud of points whose sorted projections on random directions are compared with those of the other photo, wherever
a patch lies. So it asks "is there the same amount and kind of texture", not "is each pixel right":
smooth results are far from the truth, plausible grain is near. Differences from the paper:

- Both photos are scaled by the deviations of the true photo only, per octave and channel. Scaled each by its own, as
  there, a photo with half the contrast in its details would count as equal.
- Patches are taken at the same evenly spread places of both photos, all of them where there are few.
- The low-pass rest is left out: it holds colour and brightness, which PSNR measures.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..arrays import Field, Image
from ..sampling.noise import normal_vector
from .planes import check_pair, planes, smooth

__all__ = ["swd"]

_OCTAVES = 4  # at most
_SMALLEST = 16  # shorter side of the coarsest octave, pixels
_PATCH = 7
_PATCHES = 8192  # per octave
_DIRECTIONS = 128
_SEED = 20180226
_TAPS = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16  # Burt and Adelson 1983
_FLOOR = 1.0  # grey levels; keeps an octave without any texture from being divided by nothing
_SPREAD = (0.7548776662466927, 0.5698402909980532)  # 1/g, 1/g^2 with g^3 = g + 1: evenly spread in the plane


def swd(restored: Image, true: Image) -> float:
    """Mean over octaves and directions of the 1-Wasserstein distance, in deviations of the true photo; 0 = equal.

    Sides of at least 16 pixels. Deterministic. Not symmetric: the true photo sets the scale.
    """
    check_pair(restored, true, "SWD", _SMALLEST)
    octaves = zip(_pyramid(planes(restored)), _pyramid(planes(true)), strict=True)
    return float(np.mean([_distance(a, b) for a, b in octaves]))


def _distance(a: Field, b: Field) -> float:
    """Distance of two detail octaves, (3, H, W) each."""
    scale = np.sqrt(b.var(axis=(1, 2), keepdims=True) + _FLOOR**2)
    centre = b.mean(axis=(1, 2), keepdims=True)
    places = _places(a.shape[1] - _PATCH + 1, a.shape[2] - _PATCH + 1)
    u, v = (_projections((field - centre) / scale, places) for field in (a, b))
    return float(np.mean(np.abs(u - v)))


def _projections(field: Field, places: tuple[NDArray[np.intp], NDArray[np.intp]]) -> Field:
    """Sorted projections of the patches at `places`: (_DIRECTIONS, N)."""
    windows = sliding_window_view(field, (1, _PATCH, _PATCH))[:, :, :, 0]  # (3, H - 6, W - 6, 7, 7)
    patches = windows[:, places[0], places[1]].swapaxes(0, 1).reshape(len(places[0]), -1)
    return np.sort(_directions() @ patches.T, axis=1)


@functools.cache
def _directions() -> Field:
    """Unit vectors, (_DIRECTIONS, 147) float64."""
    drawn = normal_vector(_SEED, 0, _DIRECTIONS * 3 * _PATCH * _PATCH).astype(np.float64).reshape(_DIRECTIONS, -1)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _places(rows: int, columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Top-left corners of the patches: every place, or _PATCHES of them evenly spread."""
    if rows * columns <= _PATCHES:
        y, x = np.divmod(np.arange(rows * columns), columns)
    else:
        count = np.arange(1, _PATCHES + 1, dtype=np.float64)
        y, x = (np.floor(count * step % 1 * size) for step, size in zip(_SPREAD, (rows, columns), strict=True))
    return y.astype(np.intp), x.astype(np.intp)


def _pyramid(field: Field) -> list[Field]:
    """Detail octaves, finest first; field: (3, H, W). An octave is what its 2 x 2 coarser neighbour cannot show."""
    octaves: list[Field] = []
    while len(octaves) < _OCTAVES and min(field.shape[1:]) >= _SMALLEST:
        coarse = _blur(field)[:, ::2, ::2]
        spread = np.zeros(field.shape)
        spread[:, ::2, ::2] = coarse
        octaves.append(field - 4 * _blur(spread))  # enlarged: zeros between samples, the blur at four times the weight
        field = coarse
    return octaves


def _blur(field: Field) -> Field:
    radius = len(_TAPS) // 2
    padded = np.pad(field, ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    return np.stack([smooth(plane, _TAPS) for plane in padded])
