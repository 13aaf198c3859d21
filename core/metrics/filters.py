"""Separable filters on float64 planes, in plain NumPy."""

from __future__ import annotations

import numpy as np

from .pair import Field

__all__ = ["gaussian_taps", "mean_2x2", "smooth", "valid"]


def gaussian_taps(radius: int, sigma: float) -> Field:
    """2 radius + 1 samples of a Gaussian of standard deviation `sigma`, with sum 1."""
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return taps / taps.sum()


def valid(field: Field, taps: Field, axis: int) -> Field:
    """Correlate along `axis` (0 or 1 of a 2-D field) without padding: that axis shrinks by len(taps) - 1."""
    moved = np.moveaxis(field, axis, 0)
    size = len(moved) - len(taps) + 1
    out = taps[0] * moved[:size]
    term = np.empty_like(out)
    for i in range(1, len(taps)):
        np.multiply(moved[i : i + size], taps[i], out=term)
        out += term
    return np.moveaxis(out, 0, axis)


def smooth(field: Field, taps: Field) -> Field:
    """`valid` along both axes: (H, W) -> (H - n + 1, W - n + 1)."""
    return valid(valid(field, taps, 0), taps, 1)


def mean_2x2(field: Field) -> Field:
    """Means of 2 x 2 blocks of an (H, W) field with even H and W."""
    return (field[::2, ::2] + field[1::2, ::2] + field[::2, 1::2] + field[1::2, 1::2]) / 4
