"""PNG: written here, because Pillow cannot write 16-bit colour, and in bands, because photos are large.

W3C PNG, third edition.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .layout import bands
from .photo import Photo, interleaved

__all__ = ["check_data", "code_points", "write"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
_SUB = 1  # filter: difference to the pixel on the left
_LEVEL = 6
_READ_BYTES = 1 << 20
_INCH_M = 0.0254


def write(photo: Photo, file: IO[bytes]) -> None:
    """Write a photo as PNG: 8 or 16 bit, grey or RGB, with or without alpha, as the photo is."""
    height, width = photo.size
    depth = photo.pixels.dtype.type
    channels = (1 if photo.grey else 3) + (photo.alpha is not None)
    bits = 8 * photo.pixels.dtype.itemsize
    file.write(_SIGNATURE)
    _put(file, b"IHDR", struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPES[channels], 0, 0, 0))
    _put_metadata(file, photo)
    packer = zlib.compressobj(_LEVEL, memLevel=9)
    for rows in bands(height, width):
        packed = packer.compress(_filtered(interleaved(photo, rows, dtype=depth)))
        if packed:
            _put(file, b"IDAT", packed)
    _put(file, b"IDAT", packer.flush())
    _put(file, b"IEND", b"")


def code_points(file: IO[bytes]) -> tuple[int, int] | None:
    """Colour primaries and transfer characteristics of a cICP chunk."""
    for kind, _ in _chunks(file):
        if kind == b"cICP":
            primaries, transfer = file.read(2)
            return primaries, transfer
        if kind == b"IDAT":
            return None
    return None


def check_data(file: IO[bytes]) -> None:
    """Compare the checksums of the image data, which Pillow does not; ValueError where one is wrong."""
    for kind, length in _chunks(file):
        if kind == b"IDAT" and _checksum(file, kind, length) != file.read(4):
            raise ValueError("the checksum of the image data is wrong")


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """(kind, length) of each chunk, the file at its data."""
    at = len(_SIGNATURE)
    file.seek(at)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        yield kind, length
        at += 8 + length + 4
        file.seek(at)


def _checksum(file: IO[bytes], kind: bytes, length: int) -> bytes:
    checksum = zlib.crc32(kind)
    while length and (part := file.read(min(length, _READ_BYTES))):
        checksum, length = zlib.crc32(part, checksum), length - len(part)
    return struct.pack(">I", checksum)


def _put(file: IO[bytes], kind: bytes, body: bytes) -> None:
    file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


def _keyword(name: str) -> bytes:
    """1 to 79 bytes of Latin-1 (11.3.3.1)."""
    return name.encode("latin-1", "replace")[:79] or b"Comment"


def _put_text(file: IO[bytes], keyword: str, text: str) -> None:
    _put(file, b"iTXt", _keyword(keyword) + bytes(5) + text.replace("\0", "").encode())


def _put_metadata(file: IO[bytes], photo: Photo) -> None:
    if photo.icc:
        _put(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.icc))
    if photo.dpi:
        across, down = (round(number / _INCH_M) for number in photo.dpi)
        _put(file, b"pHYs", struct.pack(">IIB", across, down, 1))
    if photo.exif:
        _put(file, b"eXIf", photo.exif)
    if photo.xmp:
        _put(file, b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + photo.xmp)
    for keyword, text in photo.text:
        _put_text(file, keyword, text)


def _filtered(samples: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Rows of big-endian samples (n, W, C) behind the "sub" filter, one filter byte each."""
    rows, _, channels = samples.shape
    raw = samples.astype(samples.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, -1)
    step = channels * samples.dtype.itemsize
    out = np.empty((rows, 1 + raw.shape[1]), np.uint8)
    out[:, 0] = _SUB
    out[:, 1 : 1 + step] = raw[:, :step]
    np.subtract(raw[:, step:], raw[:, :-step], out=out[:, 1 + step :])
    return out.tobytes()
