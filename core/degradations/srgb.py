"""What a picture's numbers mean: the levels of a file, and the light behind them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["LUMA", "Picture", "Plane", "blend", "encoded", "light", "quantize"]

Picture: TypeAlias = NDArray[np.float32]  # (H, W, 3)
Plane: TypeAlias = NDArray[np.float32]  # (H, W)
Array: TypeAlias = NDArray[np.float32]  # any shape

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of sRGB values: BT.601, as JPEG has it


def quantize(picture: Picture) -> Picture:
    """Round to the 256 levels of an 8-bit file, as saving a photo does. Clips to [0, 1]."""
    levels: Picture = np.floor(np.clip(picture, 0, 1) * np.float32(255) + np.float32(0.5))
    return levels / np.float32(255)


def blend(under: Array, over: Array, share: Array | np.float32) -> Array:
    """`under` where `share` is 0, `over` where it is 1, their mixture in between; shapes broadcast."""
    return (under + share * (over - under)).astype(np.float32, copy=False)


def light(values: Array) -> Array:
    """Light of sRGB values, both in [0, 1] and of any shape (IEC 61966-2-1); clips."""
    values = np.clip(values, 0, 1)
    curved = ((values + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(values <= 0.04045, values / np.float32(12.92), curved)


def encoded(linear: Array) -> Array:
    """sRGB values of linear light, both in [0, 1] and of any shape: the inverse of `light`; clips."""
    linear = np.clip(linear, 0, 1)
    curved = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.clip(np.where(linear <= 0.0031308, linear * np.float32(12.92), curved), 0, 1)
