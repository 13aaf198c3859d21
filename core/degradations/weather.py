"""Rain, snow and haze: light that air and water add to a scene and take from it. All in linear light, (H, W, 3)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from . import kernels
from .filters import convolve
from .light import Plane, blend

__all__ = ["flake", "hazed", "lit", "screened", "streak"]

Light = NDArray[np.float32]  # (H, W, 3)
Colour = NDArray[np.float32]  # (3,)


def streak(length: float, width: float, angle: float) -> Plane:
    """The trace of one raindrop: largest value 1, `length` and `width` in pixels, `angle` (radians) from the vertical.

    Its ends fade, its profile is a Gaussian of full width `width` at half height.
    """
    reach = math.ceil(length / 2 + width)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = y * math.cos(angle) + x * math.sin(angle)
    across = x * math.cos(angle) - y * math.sin(angle)
    taper = np.clip(1 - (2 * np.abs(along) / length) ** 4, 0, 1)
    trace = np.exp(-4 * math.log(2) * (across / width) ** 2) * taper
    wide = math.ceil(reach * abs(math.sin(angle)) + width + 1)  # cut the empty margin: the filter is faster
    margin = max(reach - wide, 0)
    return trace[:, margin : trace.shape[1] - margin].astype(np.float32)


def flake(radius: float, motion: float, angle: float) -> Plane:
    """A snowflake that falls: a soft disc of `radius` pixels drawn out over `motion` pixels; largest value 1."""
    reach = math.ceil(motion / 2)
    disc = kernels.disc(radius)
    room = np.pad(disc, math.ceil(radius / 4) + reach)
    soft = convolve(room, kernels.gaussian(2 * math.ceil(radius / 2) + 3, (radius / 3, radius / 3), 0.0))
    drawn = np.clip(convolve(soft, streak(motion, 1.0, angle)) if motion >= 1 else soft, 0, None)
    return drawn / drawn.max()


def screened(light: Light, layers: list[tuple[Plane, float]]) -> Light:
    """Streaks of light over a scene, each (mask, brightness in linear light): 1 - (1 - J) * prod(1 - b * M)."""
    dark = 1 - light.astype(np.float64)
    for mask, brightness in layers:
        dark *= 1 - brightness * mask[..., np.newaxis]
    return (1 - dark).astype(np.float32)


def hazed(light: Light, transmission: Plane, airlight: Colour) -> Light:
    """Koschmieder's law: I = J * t + A * (1 - t); t (H, W) and A (3,) in [0, 1]."""
    return blend(airlight, light, transmission[..., np.newaxis])


def lit(light: Light, masks: list[tuple[Plane, float]]) -> Light:
    """Light added without limit, each (mask, brightness): J + sum of b * M, the heavy rain of Li et al. (CVPR 2019)."""
    out = light.copy()
    for mask, brightness in masks:
        out += np.float32(brightness) * mask[..., np.newaxis]
    return out
