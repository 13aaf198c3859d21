"""Reading with Pillow: one file to one upright `Photo`, without a needless copy."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.AvifImagePlugin import AvifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..errors import PhotoUnsupportedError
from . import colour, heif, jpeg, metadata
from .photo import Photo, bands, check_size, rescaled, swaps_sides, unturned

__all__ = ["decode", "png_code_points"]

_PLUGINS: dict[str, type[ImageFile]] = {
    "AVIF": AvifImageFile,
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
}

_KEYED_MODES = ("1", "L", "RGB", "I;16")  # PNG: one colour may stand for "transparent"
_LOW_DEPTH_SCALES = {"L;2": 85, "L;4": 17}
_PLAIN_MODES = ("L", "LA", "RGB", "RGBA")  # bands are samples
_SPECIAL_MODES = {"1": "L", "La": "LA", "P": "RGB", "PA": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}  # to a plain one
_OTHER_KINDS = {"F": "floating point", "I": "32-bit or signed integer"}

_HIGH_BYTE = 1 if sys.byteorder == "little" else 0
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_UINT8, _UINT16 = np.dtype(np.uint8), np.dtype(np.uint16)
_PNG_SIGNATURE = 8  # bytes
_READ_BYTES = 1 << 20
_TIFF_SUBFILE, _TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANAR, _TIFF_DNG = 254, 258, 262, 284, 50706
_REDUCED_COPY, _MIN_IS_WHITE, _SEPARATE_PLANES = 1, 0, 2


@dataclass(frozen=True)
class _Layout:
    """How to take samples from a loaded Pillow image.

    Pillow has no 16-bit colour mode: it keeps the high bytes and drops the rest. But its C decoders undo compression
    and prediction on the raw bytes and choose the byte only when they unpack; if asked for the other byte order, they
    return the low bytes. So a file with 16-bit colour is decoded twice (`raw_modes`: high, then low bytes), and PNG's
    16-bit grey with alpha, 32 bits a pixel, once as raw bytes.
    """

    take: Callable[[Pillow.Image], NDArray[Any]]  # band -> (n, W, channels) samples, or one byte of each
    channels: int  # 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha
    dtype: np.dtype[Any] = _UINT8  # or _UINT16
    raw_modes: tuple[str | None, ...] = (None,)  # one decoding each; None: as Pillow chooses
    key_scale: int = 1  # of a transparent colour that is given in the file's own depth
    premultiplied: bool = False
    converted: bool = False  # to sRGB: the file's profile no longer applies
    notices: tuple[str, ...] = ()


def decode(file: IO[bytes], format: str, max_pixels: int) -> Photo:
    """Read a file of a format that Pillow knows: pixels upright, everything else as the file has it.

    Raises PhotoTooLargeError, PhotoUnsupportedError, or what Pillow raises for a damaged file.
    """
    image = _open(file, format)
    check_size(image.size, max_pixels)
    _check_single(image)
    how = _layout(image)
    facts = heif.facts(file) if isinstance(image, AvifImageFile) else heif.HeifFacts()
    if isinstance(image, PngImageFile):
        _check_png_data(file)
    _loaded(image, how.raw_modes[0])
    orientation = metadata.orientation(image)

    grey = how.channels <= 2 or facts.monochrome
    icc, colour_notices = (None, ()) if how.converted else _profile(file, image, facts, grey=grey)
    exif, exif_notices = metadata.exif(image)
    gain_map, map_notices = jpeg.gain_map(file, image, orientation) if isinstance(image, JpegImageFile) else (None, ())
    deep = (f"the AVIF file has {facts.bits} bits per sample, of which 8 are read",) if (facts.bits or 8) > 8 else ()
    key = _colour_key(image, how)
    shape = image.size if swaps_sides(orientation) else image.size[::-1]
    photo = Photo(
        pixels=np.empty((*shape, 3), how.dtype),
        alpha=np.empty(shape, how.dtype) if how.channels in (2, 4) or key is not None else None,
        grey=grey,
        icc=icc,
        exif=exif,
        xmp=metadata.xmp(image),
        iptc=metadata.iptc(image),
        text=metadata.text(image),
        dpi=metadata.dpi(image),
        gain_map=gain_map,
        format=format,
        notices=how.notices + colour_notices + exif_notices + map_notices + deep + facts.notices,
    )
    _copy(image, how, 0, photo, orientation)
    del image  # its samples; a second decoding takes as much again
    for decoding, raw_mode in enumerate(how.raw_modes[1:], start=1):
        _copy(_loaded(_open(file, format), raw_mode), how, decoding, photo, orientation)
    _settle_alpha(photo, how, key)
    return photo


def png_code_points(file: IO[bytes]) -> tuple[int, int] | None:
    """Colour primaries and transfer characteristics of a PNG's cICP chunk."""
    for kind, _ in _chunks(file):
        if kind == b"cICP":
            primaries, transfer = file.read(2)
            return primaries, transfer
        if kind == b"IDAT":
            return None
    return None


def _open(file: IO[bytes], format: str) -> ImageFile:
    file.seek(0)
    try:
        return _PLUGINS[format](file)
    except SyntaxError as error:
        if "unknown pixel mode" not in str(error):  # of a TIFF; everything else is damage
            raise
        raise PhotoUnsupportedError(
            f"this kind of TIFF cannot be read ({error}); save it as grey or RGB with 8 or 16 bit unsigned integers"
        ) from error


def _loaded(image: ImageFile, raw_mode: str | None) -> ImageFile:
    """Decode an opened image; with a raw mode, its samples are unpacked in that way."""
    if raw_mode is not None:
        image.tile = [
            tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
            for tile in image.tile
        ]
    image.load()
    return image


def _check_single(image: ImageFile) -> None:
    frames, kind = getattr(image, "n_frames", 1), "frames (an animation)"
    if isinstance(image, TiffImageFile):
        if _TIFF_DNG in image.tag_v2 or image.tag_v2.get(_TIFF_SUBFILE, 0) & _REDUCED_COPY:
            raise PhotoUnsupportedError("it is a camera raw file; develop it to a 16-bit TIFF or PNG first")
        frames, kind = _full_pages(image), "pages"
    if frames > 1:
        raise PhotoUnsupportedError(f"it has {frames} {kind}; give a file with a single image")


def _full_pages(image: TiffImageFile) -> int:
    """Pages of a TIFF that are not smaller copies of another."""
    pages = 0
    for page in range(image.n_frames):
        image.seek(page)
        pages += not image.tag_v2.get(_TIFF_SUBFILE, 0) & _REDUCED_COPY
    image.seek(0)
    return pages


def _layout(image: ImageFile) -> _Layout:
    """The layout of an opened, not yet loaded image; PhotoUnsupportedError for samples that cannot be taken."""
    args = image.tile[0].args if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    raw = first if isinstance(first, str) else ""
    tags: Any = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    # Pillow reads 16-bit channels that are stored one after the other as noise, or half of each sample.
    if tags.get(_TIFF_PLANAR) == _SEPARATE_PLANES and max(tags.get(_TIFF_BITS, (8,))) > 8:
        raise PhotoUnsupportedError(
            "its 16-bit channels are stored one after the other (planar); save it with interleaved channels"
        )
    if image.mode in ("CMYK", "LAB"):
        convert, notice = colour.to_srgb(metadata.icc(image), image.mode)
        return _Layout(lambda band: _samples(convert(band)), 3, converted=True, notices=(notice,))
    if image.mode.startswith("I;16"):
        return _deep_grey(twelve_bits=raw == "I;12", inverted=tags.get(_TIFF_PHOTOMETRIC) == _MIN_IS_WHITE)
    if raw == "LA;16B" and image.mode == "RGBA":
        return _Layout(lambda band: np.asarray(band).view(">u2"), 2, _UINT16, ("RGBA",))
    if ";16" in raw and image.mode in ("RGB", "RGBA"):
        high = raw.replace("a", "A")
        low = high[:-1] + _OTHER_ORDER[high[-1]]
        return _Layout(_samples, len(image.mode), _UINT16, (high, low), premultiplied="a" in raw)
    mode = _SPECIAL_MODES.get(image.mode, image.mode)
    if mode in _PLAIN_MODES:
        mode = "RGBA" if image.mode == "P" and "transparency" in image.info else mode
        return _Layout(
            lambda band: _samples(band if band.mode == mode else band.convert(mode)),
            len(mode),
            key_scale=_LOW_DEPTH_SCALES.get(raw, 1),
        )
    kind = _OTHER_KINDS.get(image.mode, f"'{image.mode}'")
    raise PhotoUnsupportedError(f"it has {kind} samples; save it with 8 or 16 bit unsigned integers")


def _deep_grey(twelve_bits: bool, inverted: bool) -> _Layout:
    def take(band: Pillow.Image) -> NDArray[Any]:
        samples = _samples(band).astype(np.uint16)
        samples = rescaled(samples, 4095, 65535) if twelve_bits else samples
        return 65535 - samples if inverted else samples

    return _Layout(take, 1, _UINT16)


def _samples(band: Pillow.Image) -> NDArray[Any]:
    array = np.asarray(band)
    return array if array.ndim == 3 else array[..., np.newaxis]


def _profile(file: IO[bytes], image: ImageFile, facts: heif.HeifFacts, *, grey: bool) -> colour.Kept:
    """The profile and notices. PNG's order: cICP, iCCP, sRGB, then gAMA with cHRM (W3C PNG, third edition, 4.3)."""
    codes, embedded = facts.code_points, metadata.icc(image)
    if isinstance(image, PngImageFile):
        codes = png_code_points(file)
        if not codes and not embedded and "srgb" not in image.info:
            gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
            encoding = gamma if isinstance(gamma, float) else None  # a PNG text of that name does not count
            numbers = cast("tuple[float, ...]", points) if isinstance(points, tuple) else None
            return colour.checked(colour.from_gamma(encoding, numbers, grey=grey), grey=grey)
        embedded = None if codes else embedded
    return colour.chosen(embedded, codes, grey=grey)


def _check_png_data(file: IO[bytes]) -> None:
    """Compare the checksums of the image data, which Pillow does not; ValueError where one is wrong."""
    for kind, length in _chunks(file):
        if kind != b"IDAT":
            continue
        checksum = zlib.crc32(kind)
        while length and (part := file.read(min(length, _READ_BYTES))):
            checksum, length = zlib.crc32(part, checksum), length - len(part)
        if struct.pack(">I", checksum) != file.read(4):
            raise ValueError("the checksum of the image data is wrong")


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """(kind, length) of each chunk, the file at its data."""
    at = _PNG_SIGNATURE
    file.seek(at)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        yield kind, length
        at += 8 + length + 4
        file.seek(at)


def _colour_key(image: ImageFile, how: _Layout) -> NDArray[np.int64] | None:
    """The colour of a PNG that stands for "transparent", in the depth of the decoded samples."""
    key: Any = image.info.get("transparency")
    numbers = cast("tuple[object, ...]", key) if isinstance(key, tuple) else (key,)
    if image.mode not in _KEYED_MODES or not all(isinstance(number, int) for number in numbers):
        return None
    return np.array(numbers, np.int64) * how.key_scale & np.iinfo(how.dtype).max


def _copy(image: Pillow.Image, how: _Layout, decoding: int, photo: Photo, orientation: int) -> None:
    """Copy samples, band by band, into views of the photo that lie as the file does; decoding: index of raw_modes."""

    def stored(upright: NDArray[Any]) -> NDArray[Any]:
        if len(how.raw_modes) > 1:  # the high or the low bytes of 16-bit samples
            upright = upright.view(np.uint8).reshape(*upright.shape, 2)[..., _HIGH_BYTE ^ decoding]
        return unturned(upright, orientation)

    pixels = stored(photo.pixels)
    alpha = stored(photo.alpha) if photo.alpha is not None and how.channels in (2, 4) else None
    colours = 3 if how.channels >= 3 else 1
    for rows in bands(image.height, image.width):
        samples = how.take(image.crop((0, rows.start, image.width, rows.stop)))
        pixels[rows] = samples[..., :colours]
        if alpha is not None:
            alpha[rows] = samples[..., -1]


def _settle_alpha(photo: Photo, how: _Layout, key: NDArray[np.int64] | None) -> None:
    """Divide 16-bit colours by alpha, rounded half up, and make alpha 0 where a pixel has the colour `key`."""
    pixels, alpha = photo.pixels, photo.alpha
    if alpha is None:
        return
    for rows in bands(*photo.size):
        if how.premultiplied:
            divisor = np.maximum(alpha[rows], 1).astype(np.uint64)[..., np.newaxis]
            divided = (2 * pixels[rows].astype(np.uint64) * 65535 + divisor) // (2 * divisor)
            pixels[rows] = np.minimum(divided, 65535)
        if key is not None:
            alpha[rows] = np.where((pixels[rows] == key).all(axis=2), 0, np.iinfo(alpha.dtype).max)
