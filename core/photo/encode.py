"""The file formats that photos are written in: what each can hold, and JPEG, WebP and AVIF through Pillow.

A photo goes into Pillow band by band and comes out as bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image as Pillow

from ..errors import PhotoWriteError
from . import jpeg, metadata
from .colour import to_srgb
from .jpeg import LARGEST_SEGMENT
from .layout import bands
from .photo import Photo, interleaved

__all__ = ["FILE_FORMATS", "FileFormat", "avif", "fitted", "jpeg_file", "webp"]

_FULL_CHROMA = "4:4:4"
_EXIF_PREFIX = b"Exif\0\0"

_LARGEST_PNG_SIDE = 2**31 - 1
_SEGMENT_HEADERS = {"exif": 6, "xmp": 29, "iptc": 26}  # field: bytes before the data in its JPEG segment


@dataclass(frozen=True)
class FileFormat:
    """What a file format can hold."""

    suffixes: tuple[str, ...]
    quality: int | None  # default, 1 to 100; None: lossless
    bits: int = 8  # per sample that a 16-bit photo keeps
    alpha: bool = True
    iptc: bool = False
    text: bool = False
    largest_side: int = _LARGEST_PNG_SIDE  # pixels


# Quality 95 with full chroma is visually lossless for photos; a source's own, lower quality is not kept, because it
# would put the blocks back that the restoration took away.
FILE_FORMATS: dict[str, FileFormat] = {
    "AVIF": FileFormat((".avif",), quality=90, largest_side=32768),
    "HEIF": FileFormat((".heic", ".heif", ".hif"), quality=95, bits=10, largest_side=16384),
    "JPEG": FileFormat((".jpg", ".jpeg", ".jpe", ".jfif"), quality=95, alpha=False, iptc=True, largest_side=65500),
    "PNG": FileFormat((".png",), quality=None, bits=16, text=True),
    "TIFF": FileFormat((".tif", ".tiff"), quality=None, bits=16, iptc=True),
    "WEBP": FileFormat((".webp",), quality=95, largest_side=16383),
}


def fitted(photo: Photo, format: str) -> tuple[Photo, tuple[str, ...]]:
    """The photo with what a format (a key of FILE_FORMATS) can hold, and a notice for each thing left out.

    Raises PhotoWriteError for what must not be left out silently: transparency, and sides that are too long.
    """
    target = FILE_FORMATS[format]
    _check_side(photo, target)
    _check_deep_grey(photo, format)
    photo, notices = _without_alpha(photo, target), tuple[str, ...]()
    if photo.pixels.dtype == np.uint16 and target.bits < 16:
        notices += (f"16-bit samples were rounded to {target.bits} bits, as {target.suffixes[0]} has no more",)
    for field, replacement, notice in _homeless(photo, format):
        photo = replace(photo, **{field: replacement})
        notices += (notice,)
    return photo, notices


def jpeg_file(photo: Photo, quality: int) -> bytes:
    """JPEG with full chroma; the gain map of an HDR photo goes behind it."""
    kept = photo.gain_map
    options: dict[str, Any] = {
        "quality": quality,
        "subsampling": _FULL_CHROMA,
        "icc_profile": photo.icc,
        "exif": _EXIF_PREFIX + photo.exif if photo.exif else None,
        "xmp": jpeg.with_gain_map_length(photo.xmp, kept) if kept else photo.xmp,
        "dpi": photo.dpi,
        "comment": dict(photo.text).get("Comment", "").encode(),
        "extra": (jpeg.iptc_segment(photo.iptc) if photo.iptc else b"") + (jpeg.iso_segment(kept) if kept else b""),
    }
    data = _encoded(_image(photo), "JPEG", options)
    return jpeg.attach(data, kept) if kept else data


def webp(photo: Photo, quality: int) -> bytes:
    """Lossy WebP. The format halves chroma resolution and has neither grey nor 16 bits."""
    photo = _rgb(photo)
    options = {"quality": quality, "icc_profile": photo.icc, "exif": photo.exif, "xmp": photo.xmp}
    return _encoded(_image(photo), "WEBP", options)


def avif(photo: Photo, quality: int) -> bytes:
    """AVIF with full chroma, 8 bits; grey without alpha stays one channel. Orientation is not in EXIF here."""
    photo = _rgb(photo) if photo.alpha is not None else photo
    options = {
        "quality": quality,
        "subsampling": "4:0:0" if photo.grey else _FULL_CHROMA,
        "icc_profile": photo.icc,
        "exif": metadata.without_orientation(photo.exif) if photo.exif else None,
        "xmp": photo.xmp,
    }
    return _encoded(_image(photo), "AVIF", options)


def _image(photo: Photo) -> Pillow.Image:
    """A Pillow image with 8-bit samples: L, RGB or RGBA."""
    height, width = photo.size
    mode = ("L" if photo.grey else "RGB") + ("A" if photo.alpha is not None else "")
    image = Pillow.new(mode, (width, height))
    for rows in bands(height, width):
        samples = interleaved(photo, rows, dtype=np.uint8)
        band = Pillow.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
        image.paste(band, (0, rows.start))
    return image


def _encoded(image: Pillow.Image, format: str, options: dict[str, Any]) -> bytes:
    """To memory first: Pillow's own writing to files overlooks short writes on a full disk."""
    buffer = io.BytesIO()
    image.save(buffer, format, **{name: value for name, value in options.items() if value})
    return buffer.getvalue()


def _rgb(photo: Photo) -> Photo:
    """A grey photo with its profile settled, for formats without grey: three equal sRGB channels."""
    if not photo.grey:
        return photo
    convert, _ = to_srgb(photo.icc, "L")
    opaque = replace(photo, alpha=None)
    pixels = np.empty(photo.pixels.shape, np.uint8)
    for rows in bands(*photo.size):
        band = interleaved(opaque, rows, dtype=np.uint8)[..., 0]
        pixels[rows] = np.asarray(convert(Pillow.fromarray(band)))
    return replace(photo.with_pixels(pixels), grey=False, icc=None)


def _check_side(photo: Photo, target: FileFormat) -> None:
    if max(photo.size) > target.largest_side:
        raise PhotoWriteError(
            f"the photo is {photo.size[1]} x {photo.size[0]} pixels, {target.suffixes[0]} holds at most "
            f"{target.largest_side} a side; write .png or .tif"
        )


def _check_deep_grey(photo: Photo, format: str) -> None:
    if format == "TIFF" and photo.grey and photo.alpha is not None and photo.pixels.dtype == np.uint16:
        raise PhotoWriteError("16-bit grey with transparency is a TIFF that hardly any program reads; write .png")


def _without_alpha(photo: Photo, target: FileFormat) -> Photo:
    if photo.alpha is None or target.alpha:
        return photo
    if photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
        raise PhotoWriteError(f"the photo has transparent parts, which {target.suffixes[0]} cannot hold; write .png")
    return replace(photo, alpha=None)


def _homeless(photo: Photo, format: str) -> Iterator[tuple[str, object, str]]:
    """(field, replacement, notice) of what the format cannot hold."""
    target = FILE_FORMATS[format]
    suffix = target.suffixes[0]
    if photo.gain_map and format != "JPEG":
        yield "gain_map", None, f"the HDR gain map is not kept in {suffix}; write .jpg to keep it"
    if photo.iptc and not target.iptc:
        yield "iptc", None, f"the IPTC data are not kept in {suffix}; write .jpg or .tif to keep them"
    kept = photo.text if target.text else tuple(t for t in photo.text if format == "JPEG" and t[0] == "Comment")
    if len(kept) < len(photo.text):
        lost = ", ".join(keyword for keyword, _ in photo.text if keyword not in dict(kept))
        yield "text", kept, f"the text notes ({lost}) are not kept in {suffix}; write .png to keep them"
    for field, header in _SEGMENT_HEADERS.items() if format == "JPEG" else ():
        if len(getattr(photo, field) or b"") + header > LARGEST_SEGMENT:
            notice = f"the {field.upper()} data are longer than 64 KiB and not kept in {suffix}"
            yield field, None, f"{notice}; write .png or .tif to keep them"
