"""The encoding of images in files: sRGB and linear light, 8-bit grey levels, JPEG."""

from __future__ import annotations

import io
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image as Pillow

from ..arrays import FloatImage, Floats

__all__ = ["LUMA", "Subsampling", "blend", "jpeg", "linear_to_srgb", "quantize", "shifted_jpeg", "srgb_to_linear"]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of sRGB values: BT.601, as JPEG has it

Subsampling: TypeAlias = Literal["4:4:4", "4:2:2", "4:2:0"]


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
    """The sRGB values of linear light, both in [0, 1] and of any shape: the inverse of `srgb_to_linear`; clips."""
    linear = np.clip(linear, 0, 1)
    curved = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.clip(np.where(linear <= 0.0031308, linear * np.float32(12.92), curved), 0, 1)


def jpeg(image: FloatImage, quality: int, subsampling: Subsampling = "4:2:0") -> FloatImage:
    """Compress and decompress as JPEG; `quality` as libjpeg counts it, 1..100."""
    buffer = io.BytesIO()
    greys = (quantize(image) * 255).astype(np.uint8)
    Pillow.fromarray(greys).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    with Pillow.open(buffer) as decoded:
        return np.asarray(decoded, dtype=np.float32) / np.float32(255)


def shifted_jpeg(
    image: FloatImage, quality: int, down: int, right: int, subsampling: Subsampling = "4:2:0"
) -> FloatImage:
    """JPEG whose 8x8 blocks start `down` rows and `right` columns above and left of the image, as after a crop."""
    larger = np.pad(image, ((down, 0), (right, 0), (0, 0)), mode="edge")
    return jpeg(larger, quality, subsampling)[down:, right:]
