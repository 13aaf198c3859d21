"""What Pillow found beside the pixels, brought into the form `Photo` keeps."""

from __future__ import annotations

import math
import struct
from typing import cast

from PIL import ExifTags, Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from . import jpeg

__all__ = ["chromaticities", "dpi", "exif", "gamma", "icc", "iptc", "orientation", "text", "xmp"]

_TIFF_IPTC = 33723
_RAW_PROFILE = "Raw profile type "  # how ImageMagick puts EXIF, IPTC, XMP into PNG text
_PNG_XMP = "XML:com.adobe.xmp"

# Tags of a TIFF's first directory that describe the photo and not how the file stores it.
_DESCRIPTIVE_TAGS = (
    ExifTags.Base.DocumentName,
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.HostComputer,
    ExifTags.Base.Rating,
    ExifTags.Base.RatingPercent,
    ExifTags.Base.Copyright,
    ExifTags.Base.XPTitle,
    ExifTags.Base.XPComment,
    ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords,
    ExifTags.Base.XPSubject,
    ExifTags.IFD.Exif,
    ExifTags.IFD.GPSInfo,
)
_EXIF_FAILURES = (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


def _orientation_tags(image: Image.Image) -> Image.Exif:
    """Pillow puts the turn that an AVIF file asks for into EXIF; in that format XMP has no say."""
    if not isinstance(image, AvifImageFile):
        return image.getexif()
    tags = Image.Exif()
    tags.load(image.info.get("exif", b""))
    return tags


def orientation(image: Image.Image) -> int:
    """1 to 8, from EXIF, else XMP; 1 for nonsense. Call it after `load`: Pillow turns TIFF itself while loading."""
    try:
        value = _orientation_tags(image).get(ExifTags.Base.Orientation)
    except _EXIF_FAILURES:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _tiff_exif(image: TiffImageFile) -> bytes | None:
    """An EXIF block of what a TIFF keeps in its own directory."""
    tags = image.getexif()
    for tag in list(tags):
        if tag not in _DESCRIPTIVE_TAGS:
            del tags[tag]
    return tags.tobytes() if tags else None


def _png_raw_exif(image: PngImageFile) -> bytes | None:
    """EXIF that ImageMagick wrote as text: name, length, then lines of hexadecimal digits."""
    lines = str(image.info.get(_RAW_PROFILE + "exif", "")).strip().split("\n")
    return bytes.fromhex("".join(lines[2:])) if len(lines) > 2 else None


def exif(image: Image.Image) -> tuple[bytes | None, tuple[str, ...]]:
    """EXIF bytes as the file has them ("Exif" prefix or not), and what to tell the user."""
    try:
        if isinstance(image, TiffImageFile):
            return _tiff_exif(image), ()
        found = _bytes(image.info.get("exif"))
        if found is None and isinstance(image, PngImageFile):
            found = _png_raw_exif(image)
    except _EXIF_FAILURES as error:
        return None, (f"the EXIF data cannot be kept ({error}) and were left out",)
    return found, ()


def icc(image: Image.Image) -> bytes | None:
    """The embedded colour profile."""
    return _bytes(image.info.get("icc_profile"))


def gamma(image: Image.Image) -> float | None:
    """The exponent of a PNG's gAMA chunk; a PNG text of that name, which Pillow puts there too, does not count."""
    value = image.info.get("gamma")
    return value if isinstance(value, float) else None


def chromaticities(image: Image.Image) -> tuple[float, ...] | None:
    """The eight numbers of a PNG's cHRM chunk."""
    value = image.info.get("chromaticity")
    return cast("tuple[float, ...]", value) if isinstance(value, tuple) else None


def xmp(image: Image.Image) -> bytes | None:
    """The XMP packet."""
    found = image.info.get("xmp")
    return found.encode() if isinstance(found, str) else _bytes(found)


def iptc(image: Image.Image) -> bytes | None:
    """IPTC-IIM records of a JPEG or TIFF."""
    return _bytes(image.tag_v2.get(_TIFF_IPTC)) if isinstance(image, TiffImageFile) else jpeg.iptc(image.info)


def text(image: Image.Image) -> tuple[tuple[str, str], ...]:
    """PNG text and the JPEG comment as (keyword, text)."""
    comment = _bytes(image.info.get("comment"))
    if comment is not None:
        return (("Comment", _decoded(comment)),)
    if not isinstance(image, PngImageFile):
        return ()
    skip = (_PNG_XMP, _RAW_PROFILE)
    return tuple((key, str(value)) for key, value in image.text.items() if not key.startswith(skip))


def _decoded(comment: bytes) -> str:
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def dpi(image: Image.Image) -> tuple[float, float] | None:
    """Pixels per inch, where the file says them sensibly."""
    try:
        across, down = (float(number) for number in image.info.get("dpi", ()))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    sensible = all(math.isfinite(number) and 1 <= number < 65536 for number in (across, down))
    return (across, down) if sensible else None
