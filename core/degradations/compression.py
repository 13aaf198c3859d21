"""Compression as JPEG, once or twice."""

from __future__ import annotations

import io
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from .light import Picture, quantize
from .windows import Window

__all__ = ["Subsampling", "blocks", "jpeg", "shifted_jpeg"]

BLOCK = 16  # pixels: the largest unit of a JPEG, that of 4:2:0
CHROMA_REACH = 2  # pixels over which its decoder interpolates chroma

Subsampling: TypeAlias = Literal["4:4:4", "4:2:2", "4:2:0"]


def blocks(window: Window, times: int = 1) -> Window:
    """The blocks of a photo that a window depends on when the photo is compressed `times` times, whatever the grids."""
    for _ in range(times):
        window = window.widened(CHROMA_REACH + BLOCK * (times - 1), BLOCK)
    return window


def jpeg(picture: Picture, quality: int, subsampling: Subsampling = "4:2:0") -> Picture:
    """Compress and decompress as JPEG; `quality` as libjpeg counts it, 1..100."""
    buffer = io.BytesIO()
    levels = (quantize(picture) * 255).astype(np.uint8)
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded, dtype=np.float32) / np.float32(255)


def shifted_jpeg(picture: Picture, quality: int, down: int, right: int, subsampling: Subsampling = "4:2:0") -> Picture:
    """JPEG whose 8x8 blocks start `down` rows and `right` columns above and left of the picture, as after a crop."""
    larger = np.pad(picture, ((down, 0), (right, 0), (0, 0)), mode="edge")
    return jpeg(larger, quality, subsampling)[down:, right:]
