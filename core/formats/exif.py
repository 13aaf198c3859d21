"""EXIF and XMP of a photo that was turned upright: changed in place, so that everything else keeps its bytes.

Writing EXIF anew would move maker notes, whose inner offsets then point nowhere; so only values are patched.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["first_directory", "upright", "upright_xmp", "without_orientation"]

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_SHORT, _LONG = 3, 4
_ENTRY = 12  # bytes of a directory entry: tag, type, count, value or offset
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)[0-9]""")


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

    def put_number(self, entry: int, value: int) -> None:
        layout = {_SHORT: "H", _LONG: "I"}[self.get("H", entry + 2)]
        self.put(layout, entry + 8, value)


def _opened(exif: bytes) -> _Tiff:
    data = bytearray(exif)
    order = {b"II*\0": "<", b"MM\0*": ">"}[bytes(data[:4])]
    return _Tiff(data, order)


def _patch_size(tiff: _Tiff, directory: int, size: tuple[int, int]) -> None:
    new = {_PIXEL_WIDTH: size[1], _PIXEL_HEIGHT: size[0]}
    for tag, entry in tiff.entries(directory):
        if tag in new:
            tiff.put_number(entry, new[tag])


def _patch(tiff: _Tiff, size: tuple[int, int]) -> None:
    first = tiff.get("I", 4)
    for tag, entry in tiff.entries(first):
        if tag == _ORIENTATION:
            tiff.put_number(entry, 1)
        elif tag == _EXIF_IFD:
            _patch_size(tiff, tiff.get("I", entry + 8), size)
    thumbnail = tiff.next_directory_at(first)
    if thumbnail + 4 <= len(tiff.data):
        tiff.put("I", thumbnail, 0)


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
        _patch(tiff, size)
    except (KeyError, struct.error):
        return None, ("the EXIF data are damaged and were left out",)
    return bytes(tiff.data), ()


def first_directory(exif: bytes) -> dict[int, tuple[int, int, bytes]]:
    """tag -> (type, count, value in the byte order of `exif`) of the first directory; empty for empty EXIF.

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


def without_orientation(exif: bytes) -> bytes:
    """EXIF (as `upright` gives it) without an orientation entry, for formats that keep orientation elsewhere."""
    tiff = _opened(exif)
    first = tiff.get("I", 4)
    found = [entry for tag, entry in tiff.entries(first) if tag == _ORIENTATION]
    for entry in reversed(found):
        end = tiff.next_directory_at(first) + 4
        del tiff.data[entry : entry + _ENTRY]
        tiff.data[end - _ENTRY : end - _ENTRY] = bytes(_ENTRY)  # what follows keeps its offsets
        tiff.put("H", first, tiff.get("H", first) - 1)
    return bytes(tiff.data)


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """XMP with tiff:Orientation 1, where it has one."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if xmp else None
