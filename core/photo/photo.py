"""A photo in memory: its pixels, and everything else that its file must keep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image
from ..errors import UsageError
from .layout import with_depth

__all__ = ["GainMap", "Photo", "interleaved"]


@dataclass(frozen=True)
class GainMap:
    """The HDR gain map of a JPEG: a second JPEG with how much brighter each place is on an HDR screen.

    Ultra HDR (Android, Adobe), ISO 21496-1 and Apple's kind differ only in the metadata, which travel inside.
    """

    jpeg: bytes  # upright like the photo, with its own metadata segments
    marker: bytes  # body of the photo's own ISO 21496-1 APP2 segment; empty when it has none


@dataclass(frozen=True, eq=False)
class Photo:
    """Upright pixels with everything that travels with them. Made by `io.read`."""

    # (H, W, 3) uint8 or uint16. The file's own values, in the colour space of `icc`; a grey photo has equal channels.
    pixels: Image
    # (H, W), dtype of `pixels`, 0 = transparent; None for an opaque photo. Colours are not multiplied by alpha; where
    # it is 0 they were replaced by the nearest visible colour.
    alpha: Image | None = None
    grey: bool = False  # the file holds one channel, and so will the result
    icc: bytes | None = None  # ICC profile; None for sRGB
    exif: bytes | None = None  # a TIFF structure, without the "Exif" prefix; orientation 1, no thumbnail
    xmp: bytes | None = None  # XMP packet; orientation 1
    iptc: bytes | None = None  # IPTC-IIM records
    text: tuple[tuple[str, str], ...] = ()  # (keyword, text): PNG text, or ("Comment", ...) of a JPEG
    dpi: tuple[float, float] | None = None  # pixels per inch, horizontal and vertical
    gain_map: GainMap | None = None  # HDR gain map of a JPEG
    format: str | None = None  # of the file it came from, a name of `io.FORMATS`; None for a photo made in memory
    source: Path | None = None  # the file it came from, which `io.write` never overwrites
    notices: tuple[str, ...] = ()  # what could not be kept or may surprise: sentences for the user, never to be dropped

    def __post_init__(self) -> None:
        _check_pixels(self.pixels)
        if self.alpha is not None and (self.alpha.shape, self.alpha.dtype) != (self.size, self.pixels.dtype):
            raise UsageError(
                f"alpha is {self.alpha.dtype} {self.alpha.shape}; "
                f"expected {self.pixels.dtype} {self.size} like the pixels"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def with_pixels(self, pixels: Image) -> Photo:
        """The same photo with other pixels (H, W, 3); 8 or 16 bit, alpha follows. UsageError for another size."""
        _check_pixels(pixels)
        if pixels.shape != self.pixels.shape:
            raise UsageError(f"pixels of shape {pixels.shape} for a photo of {self.pixels.shape}; keep the size")
        return replace(self, pixels=pixels, alpha=_alpha_like(self.alpha, pixels))


def _check_pixels(pixels: Image) -> None:
    right = pixels.ndim == 3 and pixels.shape[2] == 3 and min(pixels.shape) > 0
    if not right or pixels.dtype.str[1:] not in ("u1", "u2"):
        raise UsageError(f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 or uint16 (height, width, 3)")


def _alpha_like(alpha: Image | None, pixels: Image) -> Image | None:
    return None if alpha is None else with_depth(alpha, pixels.dtype.type)


def _mean_of_channels(pixels: Image) -> Image:
    total = pixels.sum(axis=2, keepdims=True, dtype=np.uint32)
    return ((2 * total + 3) // 6).astype(pixels.dtype)


def interleaved(photo: Photo, rows: slice, *, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    """Rows of a photo as a file stores them: (n, W, C), C = 1 (grey: the mean) or 3 colours, then alpha if any.

    Depth, grey and alpha are settled here for a band of rows, so that a writer needs no second full copy.
    """
    pixels = photo.pixels[rows]
    colours = with_depth(_mean_of_channels(pixels) if photo.grey else pixels, dtype)  # (n, W, 1 | 3)
    if photo.alpha is None:
        return colours
    parts: list[NDArray[Any]] = [colours, with_depth(photo.alpha[rows], dtype)[..., np.newaxis]]
    return np.concatenate(parts, axis=2)
