"""A photo in memory: its pixels, everything else that its file must keep, and how samples lie in files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Transpose

from ..arrays import Image
from ..errors import PhotoTooLargeError, UsageError

__all__ = [
    "TRANSPOSES",
    "GainMap",
    "Photo",
    "bands",
    "check_pixels",
    "check_size",
    "fill_hidden",
    "interleaved",
    "mean_of_channels",
    "rescaled",
    "swaps_sides",
    "unturned",
    "with_depth",
]

_BAND_PIXELS = 1 << 20
_FAR = 1 << 30
_BLOCK = 256  # columns or rows in work at one time

TRANSPOSES = {  # by EXIF orientation: what turns the stored image upright
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


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
    format: str | None = None  # of its file, a name of `encode.FILE_FORMATS`; None for a photo made in memory
    source: Path | None = None  # the file it came from, which `io.write` never overwrites
    notices: tuple[str, ...] = ()  # what could not be kept or may surprise: sentences for the user, never to be dropped

    def __post_init__(self) -> None:
        check_pixels(self.pixels)
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
        check_pixels(pixels)
        if pixels.shape != self.pixels.shape:
            raise UsageError(f"pixels of shape {pixels.shape} for a photo of {self.pixels.shape}; keep the size")
        alpha = None if self.alpha is None else with_depth(self.alpha, pixels.dtype.type)
        return replace(self, pixels=pixels, alpha=alpha)


def check_pixels(pixels: Image) -> None:
    """Raise UsageError unless the pixels are an Image: (H, W, 3) uint8 or uint16, not empty."""
    right = pixels.ndim == 3 and pixels.shape[2] == 3 and min(pixels.shape) > 0
    if not right or pixels.dtype.str[1:] not in ("u1", "u2"):
        raise UsageError(f"expected an image uint8 or uint16 (height, width, 3), got {pixels.dtype} {pixels.shape}")


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise PhotoTooLargeError for an image (width, height) above the limit, before it is decoded."""
    width, height = size
    if width * height > max_pixels:
        raise PhotoTooLargeError(
            f"it has {width} x {height} = {width * height / 1e6:.1f} megapixels, the limit is {max_pixels / 1e6:.1f}; "
            "raise the limit with --max-pixels (max_pixels= in Python) if you trust the file"
        )


def bands(height: int, width: int) -> Iterator[slice]:
    """Row slices that cover `height` rows, about a megapixel each: what is in work stays small."""
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def rescaled(samples: NDArray[Any], source: int, target: int) -> Image:
    """Map 0 .. source to 0 .. target (white stays white), rounded half up; uint8 if it fits, else uint16."""
    return _table(source, target)[np.minimum(samples, source)]


@cache
def _table(source: int, target: int) -> Image:
    """Values target * i / source for i = 0 .. source, rounded half up."""
    index = np.arange(source + 1, dtype=np.int64)
    scaled = (2 * index * target + source) // (2 * source)
    return scaled.astype(np.uint8) if target < 256 else scaled.astype(np.uint16)


def with_depth(samples: Image, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    """The same image in `dtype`: 8 -> 16 bit is exact, 16 -> 8 bit rounds half up."""
    if samples.dtype == dtype:
        return samples
    return rescaled(samples, np.iinfo(samples.dtype).max, np.iinfo(dtype).max)


def mean_of_channels(pixels: Image) -> Image:
    """(..., 3) -> (..., 1), rounded half up."""
    total = pixels.sum(axis=-1, keepdims=True, dtype=np.uint32)
    return ((2 * total + 3) // 6).astype(pixels.dtype)


def interleaved(photo: Photo, rows: slice, *, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    """Rows of a photo as a file stores them: (n, W, C), C = 1 (grey: the mean) or 3 colours, then alpha if any.

    Depth, grey and alpha are settled here for a band of rows, so that a writer needs no second full copy.
    """
    pixels = photo.pixels[rows]
    colours = with_depth(mean_of_channels(pixels) if photo.grey else pixels, dtype)  # (n, W, 1 | 3)
    if photo.alpha is None:
        return colours
    parts: list[NDArray[Any]] = [colours, with_depth(photo.alpha[rows], dtype)[..., np.newaxis]]
    return np.concatenate(parts, axis=2)


def swaps_sides(orientation: int) -> bool:
    """Whether width and height change places."""
    return orientation >= 5


def unturned(upright: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of an upright image (H, W, ...) as the file stores it: writing stored rows there turns them.

    EXIF 2.32, tag 0x0112: the orientation names where the stored first row and column are in the upright image.
    """
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1]
    if orientation in (3, 4, 7, 8):
        upright = upright[::-1]
    return upright.swapaxes(0, 1) if swaps_sides(orientation) else upright


def fill_hidden(pixels: Image, alpha: Image) -> None:
    """Give each fully transparent pixel, in place, the colour of the nearest visible one (city-block distance).

    Editors leave anything there, often black: the restoration would draw it into the visible edge. The filled
    colour stays invisible. An image without any visible pixel stays unchanged.

    pixels: (H, W, 3), changed; alpha: (H, W), 0 = transparent.
    """
    visible = alpha > 0
    if visible.all() or not visible.any():
        return
    height, width = alpha.shape
    source_rows = np.empty((height, width), np.int32)
    for start in range(0, width, _BLOCK):
        source_rows[:, start : start + _BLOCK] = _nearest_row(visible[:, start : start + _BLOCK])
    rows = np.arange(height, dtype=np.int64)[:, np.newaxis]
    for start in range(0, height, _BLOCK):
        block = slice(start, start + _BLOCK)
        hidden, found = ~visible[block], source_rows[block]
        if hidden.any():
            column = _nearest_column(np.where(found < 0, _FAR, np.abs(found - rows[block])).astype(np.int64))
            row = np.take_along_axis(found, column, 1)
            pixels[block][hidden] = pixels[row[hidden], column[hidden]]


def _nearest_row(visible: NDArray[np.bool_]) -> NDArray[np.int32]:
    """For each pixel (H, W) the row of the nearest visible pixel in its column; -1 in an empty column."""
    rows = np.arange(len(visible), dtype=np.int32)[:, np.newaxis]
    above = np.maximum.accumulate(np.where(visible, rows, -1), axis=0)
    below = np.minimum.accumulate(np.where(visible, rows, _FAR)[::-1], axis=0)[::-1]
    use_above = (above >= 0) & ((below == _FAR) | (rows - above <= below - rows))
    return np.where(use_above, above, np.where(below == _FAR, -1, below)).astype(np.int32)


def _nearest_column(distance: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each pixel (n, W) the column x' of its row with the least distance(x') + |x - x'|."""
    width = distance.shape[1]
    columns = np.arange(width, dtype=np.int64)
    # A running minimum over (distance, column) packed in one number finds both.
    from_left = np.minimum.accumulate((distance - columns + width) * width + columns, axis=1)
    mirrored = (distance[:, ::-1] - columns + width) * width + columns
    from_right = np.minimum.accumulate(mirrored, axis=1)[:, ::-1]
    left, right = from_left % width, width - 1 - from_right % width
    from_left = np.take_along_axis(distance, left, 1) + columns - left
    from_right = np.take_along_axis(distance, right, 1) + right - columns
    return np.where(from_left <= from_right, left, right)
