"""Reading with Pillow: one file to one upright `Photo`, without a needless copy."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
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

from ..arrays import Image
from ..errors import PhotoTooLargeError, PhotoUnsupportedError
from . import colour, heif, jpeg, metadata, png
from .layout import Layout, bands, layout, set_raw_mode, swaps_sides, unturned
from .photo import GainMap, Photo

__all__ = ["PLUGINS", "auxiliary_notices", "check_size", "decode", "profile"]

PLUGINS: dict[str, type[ImageFile]] = {
    "AVIF": AvifImageFile,
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
}

_HIGH_BYTE = 1 if sys.byteorder == "little" else 0
_KEYED_MODES = ("1", "L", "RGB", "I;16")  # PNG: one colour may stand for "transparent"
_TIFF_SUBFILE, _TIFF_DNG = 254, 50706
_REDUCED_COPY = 1


def decode(file: IO[bytes], format: str, max_pixels: int) -> Photo:
    """Read a file of `format` (a key of PLUGINS): pixels upright, everything else as the file has it.

    Raises PhotoTooLargeError, PhotoUnsupportedError, or what Pillow raises for a damaged file.
    """
    image = _open(file, format)
    check_size(image.size, max_pixels)
    _check_single(image)
    how = layout(image)
    facts = heif.facts(file) if isinstance(image, AvifImageFile) else None
    if isinstance(image, PngImageFile):
        png.check_data(file)
    _loaded(image, how.raw_modes[0])
    orientation = metadata.orientation(image)

    icc, colour_notices = _profile_of(file, image, how, facts)
    exif, exif_notices = metadata.exif(image)
    gain_map, map_notices = _gain_map(file, image, orientation)
    photo = Photo(
        pixels=np.empty((1, 1, 3), np.uint8),
        grey=_is_grey(how, facts),
        icc=icc,
        exif=exif,
        xmp=metadata.xmp(image),
        iptc=metadata.iptc(image),
        text=metadata.text(image),
        dpi=metadata.dpi(image),
        gain_map=gain_map,
        format=format,
        notices=how.notices + colour_notices + exif_notices + map_notices + (_avif_notices(facts) if facts else ()),
    )
    key, canvas = _colour_key(image, how), _Canvas.blank(how, orientation, image.size)
    canvas.put(image, 0)
    del image  # its samples; a second decoding takes as much again
    for decoding, raw_mode in enumerate(how.raw_modes[1:], start=1):
        canvas.put(_loaded(_open(file, format), raw_mode), decoding)
    return _with_alpha(photo, canvas, key)


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise PhotoTooLargeError for an image (width, height) above the limit, before it is decoded."""
    width, height = size
    if width * height > max_pixels:
        raise PhotoTooLargeError(
            f"it has {width} x {height} = {width * height / 1e6:.1f} megapixels, the limit is {max_pixels / 1e6:.1f}; "
            "raise the limit with --max-pixels (max_pixels= in Python) if you trust the file"
        )


def profile(
    embedded: bytes | None, codes: tuple[int, int] | None, *, grey: bool
) -> tuple[bytes | None, tuple[str, ...]]:
    """The profile of a photo and notices: the embedded one, else one built from H.273 codes; None for sRGB.

    Raises PhotoUnsupportedError where the codes say HDR.
    """
    built, notices = colour.from_code_points(*codes) if codes else (None, ())
    if embedded:
        return colour.checked(embedded, grey=grey)
    icc, curve_notices = colour.checked(None if grey else built, grey=grey)
    return icc, notices + curve_notices


def auxiliary_notices(found: heif.HeifFacts) -> tuple[str, ...]:
    """Notices about images in an AVIF or HEIF file that the result will not have."""
    notices = ("the HDR gain map is not kept: the result is the standard (SDR) photo",) if found.gain_map else ()
    if found.others:
        notices += (f"further images in the file are not kept: {', '.join(found.others)}",)
    return notices


def _open(file: IO[bytes], format: str) -> ImageFile:
    file.seek(0)
    try:
        return PLUGINS[format](file)
    except SyntaxError as error:
        if "unknown pixel mode" not in str(error):  # of a TIFF; everything else is damage
            raise
        raise PhotoUnsupportedError(
            f"this kind of TIFF cannot be read ({error}); save it as grey or RGB with 8 or 16 bit unsigned integers"
        ) from error


def _loaded(image: ImageFile, raw_mode: str | None) -> ImageFile:
    if raw_mode is not None:
        set_raw_mode(image, raw_mode)
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


@dataclass(frozen=True)
class _Canvas:
    """The upright arrays that one or two decodings fill."""

    how: Layout
    orientation: int
    pixels: Image
    alpha: Image | None

    @classmethod
    def blank(cls, how: Layout, orientation: int, size: tuple[int, int]) -> _Canvas:
        """size: (width, height) as stored."""
        shape = size if swaps_sides(orientation) else size[::-1]
        alpha = _empty(shape, how.dtype) if how.channels in (2, 4) else None
        return cls(how, orientation, _empty((*shape, 3), how.dtype), alpha)

    def _view(self, samples: NDArray[Any] | None, decoding: int) -> NDArray[Any] | None:
        if samples is None:
            return None
        part = _one_byte(samples, decoding) if len(self.how.raw_modes) > 1 else samples
        return unturned(part, self.orientation)

    def put(self, image: ImageFile, decoding: int) -> None:
        """Take the samples of a loaded image; decoding: index into `Layout.raw_modes`."""
        pixels = self._view(self.pixels, decoding)
        assert pixels is not None
        _copy(image, self.how, pixels, self._view(self.alpha, decoding))


def _empty(shape: tuple[int, ...], dtype: type[np.uint8] | type[np.uint16]) -> Image:
    return np.empty(shape, np.uint16) if dtype is np.uint16 else np.empty(shape, np.uint8)


def _one_byte(samples: NDArray[Any], which: int) -> NDArray[np.uint8]:
    """A view of the high (0) or low (1) bytes of contiguous 16-bit samples."""
    return samples.view(np.uint8).reshape(*samples.shape, 2)[..., _HIGH_BYTE ^ which]


def _copy(image: Pillow.Image, how: Layout, pixels: NDArray[Any], alpha: NDArray[Any] | None) -> None:
    """Copy the samples, band by band, into views that lie as the file does."""
    colours = 3 if how.channels >= 3 else 1
    for rows in bands(image.height, image.width):
        samples = how.take(image.crop((0, rows.start, image.width, rows.stop)))
        pixels[rows] = samples[..., :colours]
        if alpha is not None:
            alpha[rows] = samples[..., -1]


def _unmultiply(pixels: Image, alpha: Image) -> None:
    """Divide 16-bit colours by alpha in place, rounded half up."""
    for rows in bands(*alpha.shape):
        divisor = np.maximum(alpha[rows], 1).astype(np.uint64)[..., np.newaxis]
        divided = (2 * pixels[rows].astype(np.uint64) * 65535 + divisor) // (2 * divisor)
        pixels[rows] = np.minimum(divided, 65535)


def _colour_key(image: ImageFile, how: Layout) -> NDArray[np.int64] | None:
    """The colour of a PNG that stands for "transparent", in the depth of the decoded samples."""
    key: Any = image.info.get("transparency")
    numbers = cast("tuple[object, ...]", key) if isinstance(key, tuple) else (key,)
    if image.mode not in _KEYED_MODES or not all(isinstance(number, int) for number in numbers):
        return None
    return np.array(numbers, np.int64) * how.key_scale & np.iinfo(how.dtype).max


def _keyed_alpha(pixels: Image, key: NDArray[np.int64]) -> Image:
    """Alpha that is 0 where a pixel has the colour `key`."""
    alpha: NDArray[Any] = np.full(pixels.shape[:2], np.iinfo(pixels.dtype).max, pixels.dtype)
    for rows in bands(*alpha.shape):
        alpha[rows][(pixels[rows] == key).all(axis=2)] = 0
    return alpha


def _with_alpha(photo: Photo, canvas: _Canvas, key: NDArray[np.int64] | None) -> Photo:
    pixels, alpha = canvas.pixels, canvas.alpha
    if canvas.how.premultiplied and alpha is not None:
        _unmultiply(pixels, alpha)
    if key is not None:
        alpha = _keyed_alpha(pixels, key)
    return replace(photo, pixels=pixels, alpha=alpha)


def _profile_of(
    file: IO[bytes], image: ImageFile, how: Layout, facts: heif.HeifFacts | None
) -> tuple[bytes | None, tuple[str, ...]]:
    if how.converted:
        return None, ()
    grey = _is_grey(how, facts)
    if isinstance(image, PngImageFile):
        return _png_profile(file, image, grey=grey)
    return profile(metadata.icc(image), facts.code_points if facts else None, grey=grey)


def _png_profile(file: IO[bytes], image: ImageFile, *, grey: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """PNG's order: cICP, iCCP, sRGB, then gAMA with cHRM (W3C PNG, third edition, 4.3)."""
    codes, embedded = png.code_points(file), metadata.icc(image)
    if codes or embedded or "srgb" in image.info:
        return profile(None if codes else embedded, codes, grey=grey)
    built = colour.from_gamma(metadata.gamma(image), metadata.chromaticities(image), grey=grey)
    return colour.checked(built, grey=grey)


def _is_grey(how: Layout, facts: heif.HeifFacts | None) -> bool:
    return how.channels <= 2 or (facts is not None and facts.monochrome)


def _gain_map(file: IO[bytes], image: ImageFile, orientation: int) -> tuple[GainMap | None, tuple[str, ...]]:
    return jpeg.gain_map(file, image, orientation) if isinstance(image, JpegImageFile) else (None, ())


def _avif_notices(found: heif.HeifFacts) -> tuple[str, ...]:
    deep = (f"the AVIF file has {found.bits} bits per sample, of which 8 are read",)
    return (deep if found.bits and found.bits > 8 else ()) + auxiliary_notices(found)
