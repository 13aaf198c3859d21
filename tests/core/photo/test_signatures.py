"""The content decides what a file is."""

from __future__ import annotations

import io
import struct

import pytest

from pocketprior.core.errors import PhotoReadError, PhotoUnsupportedError
from pocketprior.core.photo.io import format_of


def ftyp(*brands: bytes) -> bytes:
    return struct.pack(">I4s4sI", 16 + 4 * (len(brands) - 1), b"ftyp", brands[0], 0) + b"".join(brands[1:])


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WEBP"),
        (ftyp(b"avif", b"mif1"), "AVIF"),
        (ftyp(b"mif1", b"avif"), "AVIF"),
        (ftyp(b"avis", b"msf1"), "AVIF"),
        (ftyp(b"heic", b"mif1"), "HEIF"),
        (ftyp(b"mif1", b"heic"), "HEIF"),
    ],
)
def test_known(head: bytes, format: str) -> None:
    assert format_of(io.BytesIO(head)) == format


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"GIF89a", "GIF"),
        (b"BM\0\0", "BMP"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"8BPS", "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b"II*\0\x10\0\0\0CR\x02\0", "camera raw"),
        (b"FUJIFILMCCD-RAW", "camera raw"),
        (ftyp(b"crx "), "camera raw"),
        (ftyp(b"msf1", b"hevc"), "frames"),
    ],
)
def test_known_but_not_read(head: bytes, word: str) -> None:
    with pytest.raises(PhotoUnsupportedError, match=word):
        format_of(io.BytesIO(head))


@pytest.mark.parametrize(
    "head", [b"Hello, world", b"\0" * 20, b"\xff\xd8", ftyp(b"isom", b"mp42"), b"RIFF\0\0\0\0WAVE", b"x"]
)
def test_unknown(head: bytes) -> None:
    with pytest.raises(PhotoReadError, match="not an image file: it begins with"):
        format_of(io.BytesIO(head))


def test_empty() -> None:
    with pytest.raises(PhotoReadError, match="empty"):
        format_of(io.BytesIO())
