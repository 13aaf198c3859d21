"""The formats Pillow writes: JPEG, WebP, AVIF. A photo goes in band by band, and comes out as bytes."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image as Pillow

from ..colour import to_srgb
from ..photo import Photo, interleaved
from . import exif, jpeg
from .samples import bands

__all__ = ["avif", "jpeg_file", "webp"]

_FULL_CHROMA = "4:4:4"
_EXIF_PREFIX = b"Exif\0\0"


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


def _picture(photo: Photo) -> Pillow.Image:
    """A Pillow picture with 8-bit samples: L, RGB or RGBA."""
    height, width = photo.size
    mode = ("L" if photo.grey else "RGB") + ("A" if photo.alpha is not None else "")
    picture = Pillow.new(mode, (width, height))
    for rows in bands(height, width):
        samples = interleaved(photo, rows, dtype=np.uint8)
        band = Pillow.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
        picture.paste(band, (0, rows.start))
    return picture


def _encoded(picture: Pillow.Image, format: str, options: dict[str, Any]) -> bytes:
    """To memory first: Pillow's own writing to files overlooks short writes on a full disk."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **{name: value for name, value in options.items() if value})
    return buffer.getvalue()


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
    data = _encoded(_picture(photo), "JPEG", options)
    return jpeg.attach(data, kept) if kept else data


def webp(photo: Photo, quality: int) -> bytes:
    """Lossy WebP. The format halves chroma resolution and has neither grey nor 16 bits."""
    photo = _rgb(photo)
    options = {"quality": quality, "icc_profile": photo.icc, "exif": photo.exif, "xmp": photo.xmp}
    return _encoded(_picture(photo), "WEBP", options)


def avif(photo: Photo, quality: int) -> bytes:
    """AVIF with full chroma, 8 bits; grey without alpha stays one channel. Orientation is not in EXIF here."""
    photo = _rgb(photo) if photo.alpha is not None else photo
    options = {
        "quality": quality,
        "subsampling": "4:0:0" if photo.grey else _FULL_CHROMA,
        "icc_profile": photo.icc,
        "exif": exif.without_orientation(photo.exif) if photo.exif else None,
        "xmp": photo.xmp,
    }
    return _encoded(_picture(photo), "AVIF", options)
