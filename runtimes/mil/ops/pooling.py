"""Pooling: one number for each window and channel."""

from __future__ import annotations

import math

import numpy as np

from ..elements import Array
from ..signatures import Ints, Op
from .windows import Windows

__all__ = ["OPS"]


def _avg_pool(
    x: Array,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Array:
    """The mean over each window: of its elements inside x, or of those inside x and its padding."""
    windows = Windows.over(x.shape[2:], kernel_sizes, strides, None, pad_type, pad, ceil_mode)
    padded = windows.padded(x)
    total = np.zeros((*x.shape[:2], *windows.sizes), x.dtype)
    for tap in windows.taps():
        total += padded[(..., *windows.seen(tap))]
    total /= _counts(x.shape[2:], windows, pad if pad_type == "custom" else None, exclude_padding_from_average)
    return total


def _counts(shape: Ints, windows: Windows, pad: Ints | None, inside: bool) -> Array:
    """How many elements each window sees: of x alone, or with its padding, but never beyond that."""
    ends = windows.after if pad is None else pad[1::2]
    counts = np.float32(1)
    for axis, (n, first, end, size) in enumerate(zip(shape, windows.before, ends, windows.sizes, strict=True)):
        starts = np.arange(size) * windows.strides[axis] - first
        stops = np.minimum(starts + windows.kernel[axis], n if inside else n + end)
        seen = stops - (np.maximum(starts, 0) if inside else starts)
        counts = np.multiply.outer(counts, seen.astype(np.float32))
    return np.asarray(counts)


def _max_pool(
    x: Array,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Array:
    """The greatest element of x in each window."""
    windows = Windows.over(x.shape[2:], kernel_sizes, strides, None, pad_type, pad, ceil_mode)
    padded = windows.padded(x, -math.inf)
    taps = windows.taps()
    greatest = padded[(..., *windows.seen(next(taps)))].copy()
    for tap in taps:
        np.maximum(greatest, padded[(..., *windows.seen(tap))], out=greatest)
    return greatest


OPS: dict[str, Op] = {"avg_pool": _avg_pool, "max_pool": _max_pool}
