"""EXIF, XMP, IPTC, text and resolution of a photo: read from what Pillow found, and settled for the upright photo.

EXIF is changed in place: writing it anew would move maker notes, whose inner offsets then point nowhere. So only values
are patched, and everything else keeps its bytes.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

__all__ = [
    "DESCRIPTIVE_TAGS",
    "IPTC_RESOURCE",
    "dpi",
    "exif",
    "first_directory",
    "icc",
    "iptc",
    "orientation",
    "text",
    "upright",
    "upright_xmp",
    "without_orientation",
    "xmp",
]

IPTC_RESOURCE = 0x0404  # in the Photoshop segment of a JPEG
_TIFF_IPTC = 33723
_RAW_PROFILE = "Raw profile type "  # how ImageMagick puts EXIF, IPTC, XMP into PNG text
_PNG_XMP = "XML:com.adobe.xmp"

# Tags of a TIFF's first directory that describe the photo and not how the file stores it: document, description, maker
# and model; software, date, artist, computer; two ratings, copyright; title, comment, author, keywords and subject as
# Windows keeps them; the directories of EXIF and GPS.
DESCRIPTIVE_TAGS = frozenset(
    {*range(269, 273), 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096), 34665, 34853}
)
_EXIF_FAILURES = (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_SHORT, _LONG = 3, 4
_ENTRY = 12  # bytes of a directory entry: tag, type, count, value or offset
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)[0-9]""")


def orientation(image: Image.Image) -> int:
    """1 to 8, from EXIF, else XMP; 1 for nonsense. Call it after `load`: Pillow turns TIFF itself while loading."""
    try:
        if isinstance(image, AvifImageFile):  # Pillow puts the turn that the file asks for into EXIF; XMP has no say
            tags = Image.Exif()
            tags.load(image.info.get("exif", b""))
        else:
            tags = image.getexif()
        value = tags.get(_ORIENTATION)
    except _EXIF_FAILURES:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


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


def xmp(image: Image.Image) -> bytes | None:
    """The XMP packet."""
    found = image.info.get("xmp")
    return found.encode() if isinstance(found, str) else _bytes(found)


def iptc(image: Image.Image) -> bytes | None:
    """IPTC-IIM records of a JPEG or TIFF."""
    if isinstance(image, TiffImageFile):
        return _bytes(image.tag_v2.get(_TIFF_IPTC))
    blocks: dict[int, Any] = image.info.get("photoshop", {}) if isinstance(image, JpegImageFile) else {}
    return _bytes(blocks.get(IPTC_RESOURCE))


def text(image: Image.Image) -> tuple[tuple[str, str], ...]:
    """PNG text and the JPEG comment as (keyword, text)."""
    comment = _bytes(image.info.get("comment"))
    if comment is not None:
        try:
            return (("Comment", comment.decode()),)
        except UnicodeDecodeError:
            return (("Comment", comment.decode("latin-1")),)
    if not isinstance(image, PngImageFile):
        return ()
    skip = (_PNG_XMP, _RAW_PROFILE)
    return tuple((key, str(value)) for key, value in image.text.items() if not key.startswith(skip))


def dpi(image: Image.Image) -> tuple[float, float] | None:
    """Pixels per inch, where the file says them sensibly."""
    try:
        across, down = (float(number) for number in image.info.get("dpi", ()))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    sensible = all(math.isfinite(number) and 1 <= number < 65536 for number in (across, down))
    return (across, down) if sensible else None


def upright(exif: bytes | None, size: tuple[int, int]) -> tuple[bytes | None, tuple[str, ...]]:
    """EXIF of a photo that was turned upright to `size` (height, width), and what to tell the user.

    Orientation becomes 1, the pixel size fits, and the thumbnail is unlinked: it shows the photo before
    restoration, and turned. The "Exif" prefix of JPEG goes. Damaged EXIF is dropped with a notice.
    """
    bare = re.sub(rb"^(Exif\0\0)+", b"", exif or b"")
    if not bare:
        return None, ()
    try:
        tiff = _opened(bare)
        first = tiff.get("I", 4)
        tiff.put_numbers(first, {_ORIENTATION: 1})
        for tag, entry in tiff.entries(first):
            if tag == _EXIF_IFD:
                tiff.put_numbers(tiff.get("I", entry + 8), {_PIXEL_WIDTH: size[1], _PIXEL_HEIGHT: size[0]})
        thumbnail = tiff.next_directory_at(first)
        if thumbnail + 4 <= len(tiff.data):
            tiff.put("I", thumbnail, 0)
    except (KeyError, struct.error):
        return None, ("the EXIF data are damaged and were left out",)
    return bytes(tiff.data), ()


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """XMP with tiff:Orientation 1, where it has one."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if xmp else None


def without_orientation(exif: bytes) -> bytes:
    """EXIF (as `upright` returns it) without an orientation entry, for formats that keep orientation elsewhere."""
    tiff = _opened(exif)
    first = tiff.get("I", 4)
    found = [entry for tag, entry in tiff.entries(first) if tag == _ORIENTATION]
    for entry in reversed(found):
        end = tiff.next_directory_at(first) + 4
        del tiff.data[entry : entry + _ENTRY]
        tiff.data[end - _ENTRY : end - _ENTRY] = bytes(_ENTRY)  # what follows keeps its offsets
        tiff.put("H", first, tiff.get("H", first) - 1)
    return bytes(tiff.data)


def first_directory(exif: bytes) -> dict[int, tuple[int, int, bytes]]:
    """Tag -> (type, count, value in the byte order of `exif`) of the first directory; empty for empty EXIF.

    Values that lie outside the block are left out. Offsets to inner directories are values like others.
    """
    if not exif:
        return {}
    tiff, found = _opened(exif), dict[int, tuple[int, int, bytes]]()
    for tag, entry in tiff.entries(tiff.get("I", 4)):
        kind, count = tiff.get("H", entry + 2), tiff.get("I", entry + 4)
        size = _TYPE_SIZES.get(kind, 1) * count
        at = entry + 8 if size <= 4 else tiff.get("I", entry + 8)
        if at + size <= len(exif):
            found[tag] = (kind, count, exif[at : at + size])
    return found


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


def _tiff_exif(image: TiffImageFile) -> bytes | None:
    """An EXIF block of what a TIFF keeps in its own directory."""
    tags = image.getexif()
    for tag in list(tags):
        if tag not in DESCRIPTIVE_TAGS:
            del tags[tag]
    return tags.tobytes() if tags else None


def _png_raw_exif(image: PngImageFile) -> bytes | None:
    """EXIF that ImageMagick wrote as text: name, length, then lines of hexadecimal digits."""
    lines = str(image.info.get(_RAW_PROFILE + "exif", "")).strip().split("\n")
    return bytes.fromhex("".join(lines[2:])) if len(lines) > 2 else None


@dataclass(frozen=True)
class _Tiff:
    """The TIFF structure that EXIF is, over a buffer that may be changed."""

    data: bytearray
    order: str  # "<" or ">"

    def get(self, layout: str, at: int) -> int:
        return struct.unpack_from(self.order + layout, self.data, at)[0]

    def put(self, layout: str, at: int, value: int) -> None:
        struct.pack_into(self.order + layout, self.data, at, value)

    def entries(self, directory: int) -> Iterator[tuple[int, int]]:
        """(tag, offset of the entry) of a directory."""
        for index in range(self.get("H", directory)):
            at = directory + 2 + _ENTRY * index
            yield self.get("H", at), at

    def next_directory_at(self, directory: int) -> int:
        return directory + 2 + _ENTRY * self.get("H", directory)

    def put_numbers(self, directory: int, values: dict[int, int]) -> None:
        """Replace the numbers of the tags that the directory has."""
        for tag, entry in self.entries(directory):
            if tag in values:
                self.put({_SHORT: "H", _LONG: "I"}[self.get("H", entry + 2)], entry + 8, values[tag])


def _opened(exif: bytes) -> _Tiff:
    data = bytearray(exif)
    order = {b"II*\0": "<", b"MM\0*": ">"}[bytes(data[:4])]
    return _Tiff(data, order)
