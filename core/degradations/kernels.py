"""Blur kernels: odd-sized squares of float32 weights that add up to 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .light import Plane

__all__ = ["disc", "gaussian", "generalized", "plateau", "sinc"]


def disc(radius: float) -> Plane:
    """What a point out of focus becomes: a disc of `radius` pixels with an edge one pixel wide."""
    reach = math.ceil(radius)
    offsets = np.arange(-reach, reach + 1)
    return _normalized(np.clip(radius + 0.5 - np.hypot(offsets, offsets[:, np.newaxis]), 0, 1))


def gaussian(size: int, sigma: tuple[float, float], angle: float) -> Plane:
    """Gaussian with standard deviations `sigma` (pixels) along its axes, the first at `angle` (radians)."""
    return generalized(size, sigma, angle, 1.0)


def generalized(size: int, sigma: tuple[float, float], angle: float, shape: float) -> Plane:
    """exp(-d**shape / 2) of the squared distance d: pointed for shape < 1, flat-topped for shape > 1."""
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
