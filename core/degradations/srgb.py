"""sRGB values and linear light, and the grey levels of 8-bit files."""

from __future__ import annotations

import numpy as np

from ..arrays import FloatImage, Floats

__all__ = ["LUMA", "blend", "linear_to_srgb", "quantize", "srgb_to_linear"]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of sRGB values: BT.601, as JPEG has it


def quantize(image: FloatImage) -> FloatImage:
    """Round to the 256 grey levels of an 8-bit file, as saving a photo does. Clips to [0, 1]."""
    greys: FloatImage = np.floor(np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5))
    return greys / np.float32(255)


def blend(under: Floats, over: Floats, share: Floats | np.float32) -> Floats:
    """`under` where `share` is 0, `over` where it is 1, their mixture in between; shapes broadcast."""
    return (under + share * (over - under)).astype(np.float32, copy=False)


def srgb_to_linear(values: Floats) -> Floats:
    """Linear light of sRGB values, both in [0, 1] and of any shape (IEC 61966-2-1); clips."""
    values = np.clip(values, 0, 1)
    curved = ((values + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(values <= 0.04045, values / np.float32(12.92), curved)


def linear_to_srgb(linear: Floats) -> Floats:
    """sRGB values of linear light, both in [0, 1] and of any shape: the inverse of `srgb_to_linear`; clips."""
    linear = np.clip(linear, 0, 1)
    curved = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.clip(np.where(linear <= 0.0031308, linear * np.float32(12.92), curved), 0, 1)
