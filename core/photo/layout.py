"""How samples lie in files and in Pillow's images: bands of rows, bit depths, EXIF orientations, 16-bit colour."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ..arrays import Image
from ..errors import PhotoUnsupportedError
from . import metadata
from .colour import to_srgb

__all__ = [
    "TRANSPOSES",
    "Layout",
    "bands",
    "fill_hidden",
    "layout",
    "rescaled",
    "set_raw_mode",
    "swaps_sides",
    "unturned",
    "with_depth",
]

_BAND_PIXELS = 1 << 20

TRANSPOSES = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_PLAIN_MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBX": "RGB",
    "YCbCr": "RGB",
}
_LOW_DEPTH_SCALES = {"L;2": 85, "L;4": 17}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANAR = 258, 262, 284
_MIN_IS_WHITE, _SEPARATE_PLANES = 0, 2

_FAR = 1 << 30
_BLOCK = 256  # columns or rows in work at one time


def bands(height: int, width: int) -> Iterator[slice]:
    """Row slices that cover `height` rows, about a megapixel each: what is in work stays small."""
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def rescaled(samples: NDArray[Any], source: int, target: int) -> Image:
    """Map 0 .. source to 0 .. target (white stays white), rounded half up; uint8 if it fits, else uint16."""
    return _table(source, target)[np.minimum(samples, source)]


def with_depth(samples: Image, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    """The same image in `dtype`: 8 -> 16 bit is exact, 16 -> 8 bit rounds half up."""
    if samples.dtype == dtype:
        return samples
    return rescaled(samples, np.iinfo(samples.dtype).max, np.iinfo(dtype).max)


@cache
def _table(source: int, target: int) -> Image:
    """Values target * i / source for i = 0 .. source, rounded half up."""
    index = np.arange(source + 1, dtype=np.int64)
    scaled = (2 * index * target + source) // (2 * source)
    return scaled.astype(np.uint8) if target < 256 else scaled.astype(np.uint16)


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


@dataclass(frozen=True)
class Layout:
    """How to take samples from a loaded Pillow image.

    Pillow has no 16-bit colour mode: it keeps the high bytes and drops the rest. But its C decoders undo compression
    and prediction on the raw bytes and choose the byte only when they unpack; if asked for the other byte order, they
    return the low bytes. So a file with 16-bit colour is decoded twice (`raw_modes`: high, then low bytes), and PNG's
    16-bit grey with alpha, 32 bits a pixel, once as raw bytes.
    """

    take: Callable[[Pillow.Image], NDArray[Any]]  # band -> (n, W, channels) samples, or one byte of each
    channels: int  # 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha
    dtype: type[np.uint8] | type[np.uint16] = np.uint8
    raw_modes: tuple[str | None, ...] = (None,)  # one decoding each; None: as Pillow chooses
    key_scale: int = 1  # of a transparent colour that is given in the file's own depth
    premultiplied: bool = False
    converted: bool = False  # to sRGB: the file's profile no longer applies
    notices: tuple[str, ...] = ()


def layout(image: ImageFile) -> Layout:
    """The layout of an opened, not yet loaded image; PhotoUnsupportedError for samples that cannot be taken."""
    _check_planes(image)
    if image.mode in ("CMYK", "LAB"):
        return _converted(image)
    if image.mode.startswith("I;16"):
        return _deep_grey(image)
    if ";16" in _raw_mode(image) and image.mode in ("RGB", "RGBA"):
        return _deep_colour(image)
    if image.mode in _PLAIN_MODES:
        return _plain(image)
    kind = {"F": "floating point", "I": "32-bit or signed integer"}.get(image.mode, f"'{image.mode}'")
    raise PhotoUnsupportedError(f"it has {kind} samples; save it with 8 or 16 bit unsigned integers")


def set_raw_mode(image: ImageFile, raw_mode: str) -> None:
    """Have an opened, not yet loaded image unpacked in another way."""
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]


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
    for start in range(0, height, _BLOCK):
        block = slice(start, min(start + _BLOCK, height))
        _fill_rows(pixels, visible, source_rows, block)


def _fill_rows(pixels: Image, visible: NDArray[np.bool_], source_rows: NDArray[np.int32], block: slice) -> None:
    if visible[block].all():
        return
    rows = np.arange(block.start, block.stop, dtype=np.int64)[:, np.newaxis]
    found = source_rows[block]
    distance = np.where(found < 0, _FAR, np.abs(found - rows)).astype(np.int64)
    column = _nearest_column(distance)
    row = np.take_along_axis(found, column, 1)
    hidden = ~visible[block]
    pixels[block][hidden] = pixels[row[hidden], column[hidden]]


def _raw_mode(image: ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _samples(band: Pillow.Image) -> NDArray[Any]:
    array = np.asarray(band)
    return array if array.ndim == 3 else array[..., np.newaxis]


def _plain(image: ImageFile) -> Layout:
    mode = _PLAIN_MODES[image.mode]
    if image.mode == "P" and "transparency" in image.info:
        mode = "RGBA"
    return Layout(
        take=lambda band: _samples(band if band.mode == mode else band.convert(mode)),
        channels=len(mode),
        key_scale=_LOW_DEPTH_SCALES.get(_raw_mode(image), 1),
    )


def _converted(image: ImageFile) -> Layout:
    convert, notice = to_srgb(metadata.icc(image), image.mode)
    return Layout(lambda band: _samples(convert(band)), 3, converted=True, notices=(notice,))


def _deep_grey(image: ImageFile) -> Layout:
    twelve_bits = _raw_mode(image) == "I;12"
    inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_PHOTOMETRIC) == _MIN_IS_WHITE

    def take(band: Pillow.Image) -> NDArray[Any]:
        samples = _samples(band).astype(np.uint16)
        samples = rescaled(samples, 4095, 65535) if twelve_bits else samples
        return 65535 - samples if inverted else samples

    return Layout(take, 1, np.uint16)


def _deep_colour(image: ImageFile) -> Layout:
    raw = _raw_mode(image)
    if raw == "LA;16B":
        return Layout(lambda band: np.asarray(band).view(">u2"), 2, np.uint16, ("RGBA",))
    high = raw.replace("a", "A")
    low = high[:-1] + _OTHER_ORDER[high[-1]]
    return Layout(_samples, len(image.mode), np.uint16, (high, low), premultiplied="a" in raw)


def _check_planes(image: ImageFile) -> None:
    """Pillow reads 16-bit channels that are stored one after the other as noise, or half of each sample."""
    if not isinstance(image, TiffImageFile) or image.tag_v2.get(_TIFF_PLANAR) != _SEPARATE_PLANES:
        return
    if max(image.tag_v2.get(_TIFF_BITS, (8,))) > 8:
        raise PhotoUnsupportedError(
            "its 16-bit channels are stored one after the other (planar); save it with interleaved channels"
        )


def _nearest_row(visible: NDArray[np.bool_]) -> NDArray[np.int32]:
    """For each pixel (H, W) the row of the nearest visible pixel in its column; -1 in an empty column."""
    height = len(visible)
    rows = np.arange(height, dtype=np.int32)[:, np.newaxis]
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
