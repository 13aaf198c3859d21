"""TIFF: written here, because Pillow cannot write 16-bit colour, and in bands, because photos are large.

TIFF 6.0, with Deflate and the horizontal predictor (TIFF technical note 3): every reader knows both. EXIF is a TIFF
structure itself, so the file begins with it, unchanged: offsets in it, those of maker notes included, stay valid.
"""

from __future__ import annotations

import struct
import zlib
from typing import IO, Literal, TypeAlias

from ..arrays import Image
from .layout import bands
from .metadata import first_directory
from .photo import Photo, interleaved

__all__ = ["write"]

Order: TypeAlias = Literal["<", ">"]
TiffEntry: TypeAlias = tuple[int, int, bytes]  # type, count, value

_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 3, 4, 5, 7
_LAYOUTS = {_SHORT: "H", _LONG: "I"}
_DEFLATE, _HORIZONTAL, _CHUNKY, _INCH, _UNASSOCIATED_ALPHA = 8, 2, 1, 2, 2
_MIN_IS_BLACK, _RGB = 1, 2
_DPI_SCALE = 10000
_LEVEL = 6
_NO_EXIF = b"II*\0\0\0\0\0"
_FIRST_DIRECTORY_AT = 4  # where the header says where the first directory is

# Tags of an EXIF block that stay: they describe the photo, not how samples are stored.
_DESCRIPTIVE = {*range(269, 273), 274, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432, 34665, 34853} | {
    *range(40091, 40096)
}


def write(photo: Photo, file: IO[bytes]) -> None:
    """Write a photo as TIFF: 8 or 16 bit, grey or RGB, with or without alpha, as the photo is."""
    exif = photo.exif or _NO_EXIF
    order: Order = "<" if exif[:2] == b"II" else ">"
    file.write(exif)
    parts = list(bands(*photo.size))
    offsets: list[int] = []
    sizes: list[int] = []
    for rows in parts:
        offsets.append(_pad(file))
        samples = interleaved(photo, rows, dtype=photo.pixels.dtype.type)
        sizes.append(file.write(zlib.compress(_predicted(samples, order), _LEVEL)))
    at = _pad(file)
    entries = _metadata(photo, order) | _structure(photo, order, parts[0].stop, offsets, sizes)
    file.write(_directory(order, entries, at))
    file.seek(_FIRST_DIRECTORY_AT)
    file.write(struct.pack(order + "I", at))


def _metadata(photo: Photo, order: Order) -> dict[int, TiffEntry]:
    entries = {tag: entry for tag, entry in first_directory(photo.exif or b"").items() if tag in _DESCRIPTIVE}
    if photo.dpi:
        entries |= {282: _resolution(order, photo.dpi[0]), 283: _resolution(order, photo.dpi[1])}
        entries[296] = _numbers(order, _SHORT, _INCH)
    blobs = {700: (_BYTE, photo.xmp), 33723: (_UNDEFINED, photo.iptc), 34675: (_UNDEFINED, photo.icc)}
    return entries | {tag: _blob(kind, value) for tag, (kind, value) in blobs.items() if value}


def _structure(photo: Photo, order: Order, rows: int, offsets: list[int], sizes: list[int]) -> dict[int, TiffEntry]:
    height, width = photo.size
    channels = (1 if photo.grey else 3) + (photo.alpha is not None)
    bits = 8 * photo.pixels.dtype.itemsize
    entries = {
        256: _numbers(order, _LONG, width),
        257: _numbers(order, _LONG, height),
        258: _numbers(order, _SHORT, *[bits] * channels),
        259: _numbers(order, _SHORT, _DEFLATE),
        262: _numbers(order, _SHORT, _MIN_IS_BLACK if photo.grey else _RGB),
        273: _numbers(order, _LONG, *offsets),
        277: _numbers(order, _SHORT, channels),
        278: _numbers(order, _LONG, rows),
        279: _numbers(order, _LONG, *sizes),
        284: _numbers(order, _SHORT, _CHUNKY),
        317: _numbers(order, _SHORT, _HORIZONTAL),
    }
    return entries | ({338: _numbers(order, _SHORT, _UNASSOCIATED_ALPHA)} if photo.alpha is not None else {})


def _directory(order: Order, entries: dict[int, TiffEntry], at: int) -> bytes:
    """A directory for file offset `at`, its longer values behind it."""
    table, values = struct.pack(order + "H", len(entries)), b""
    start = at + 2 + 12 * len(entries) + 4
    for tag, (kind, count, value) in sorted(entries.items()):
        table += struct.pack(order + "HHI", tag, kind, count)
        if len(value) <= 4:
            table += value.ljust(4, b"\0")
        else:
            table += struct.pack(order + "I", start + len(values))
            values += value + bytes(len(value) % 2)
    return table + bytes(4) + values


def _predicted(samples: Image, order: Order) -> bytes:
    """Differences to the pixel on the left, modulo the sample range; samples: (n, W, C)."""
    differences = samples.copy()
    differences[:, 1:] -= samples[:, :-1]
    return differences.astype(samples.dtype.newbyteorder(order)).tobytes()


def _pad(file: IO[bytes]) -> int:
    """Make the position even, as TIFF wants it, and return it."""
    file.write(bytes(file.tell() % 2))
    return file.tell()


def _numbers(order: Order, kind: int, *values: int) -> TiffEntry:
    return kind, len(values), struct.pack(f"{order}{len(values)}{_LAYOUTS[kind]}", *values)


def _blob(kind: int, value: bytes) -> TiffEntry:
    return kind, len(value), value


def _resolution(order: Order, dpi: float) -> TiffEntry:
    return _RATIONAL, 1, struct.pack(order + "II", round(dpi * _DPI_SCALE), _DPI_SCALE)
