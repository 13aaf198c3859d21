"""Compression as JPEG, once or twice."""

from __future__ import annotations

import io
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image as Pillow

from ..arrays import FloatImage
from .srgb import quantize
from .windows import Window

__all__ = ["Subsampling", "blocks", "jpeg", "shifted_jpeg"]

_BLOCK = 16  # pixels: the largest unit of a JPEG, that of 4:2:0
_CHROMA_RADIUS = 2  # pixels over which its decoder interpolates chroma

Subsampling: TypeAlias = Literal["4:4:4", "4:2:2", "4:2:0"]


def blocks(window: Window, times: int = 1) -> Window:
    """The window widened to all blocks that it depends on when its photo is compressed `times` times, on any grid."""
    for _ in range(times):
        window = window.widened(_CHROMA_RADIUS + _BLOCK * (times - 1), _BLOCK)
    return window


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
