"""Which format a file has, by its first bytes: names lie."""

from __future__ import annotations

from typing import IO

from ..errors import PhotoReadError, PhotoUnsupportedError
from . import boxes

__all__ = ["format_of"]

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_OTHERS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"FUJIFILMCCD-RAW": "camera raw",
    b"IIRO": "camera raw",
    b"IIRS": "camera raw",
    b"IIU\0": "camera raw",
}
_CANON_RAW_MARK = b"CR\x02\0"  # at byte 8 of what is a TIFF otherwise
_AVIF_BRANDS = {"avif", "avis"}
_HEIF_BRANDS = {"heic", "heix", "heim", "heis", "mif1", "mif2"}
_SEQUENCE_BRANDS = {"hevc", "hevx", "hevm", "hevs", "msf1"}
_LONGEST = 16


def _boxed(file: IO[bytes]) -> str | None:
    found = boxes.brands(file)
    if _AVIF_BRANDS.intersection(found):
        return "AVIF"
    if found and found[0] in _SEQUENCE_BRANDS:
        raise PhotoUnsupportedError("it is a HEIF sequence of several frames; give a file with a single picture")
    if _HEIF_BRANDS.intersection(found):
        return "HEIF"
    if found and found[0] == "crx ":
        raise _unsupported("camera raw")
    return None


def _unsupported(kind: str) -> PhotoUnsupportedError:
    advice = "develop it to a 16-bit TIFF or PNG first" if kind == "camera raw" else "convert it to PNG first"
    return PhotoUnsupportedError(f"it is a {kind} file, which is not read here; {advice}")


def _starting(head: bytes, table: dict[bytes, str]) -> str | None:
    return next((name for signature, name in table.items() if head.startswith(signature)), None)


def format_of(file: IO[bytes]) -> str:
    """AVIF, HEIF, JPEG, PNG, TIFF or WEBP, whatever the file is called.

    Raises PhotoUnsupportedError for other known formats, PhotoReadError for the rest.
    """
    file.seek(0)
    head = file.read(_LONGEST)
    if not head:
        raise PhotoReadError("the file is empty; it may not have been copied completely")
    if head[8:12] == _CANON_RAW_MARK:
        raise _unsupported("camera raw")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    known = _starting(head, _SIGNATURES) or (_boxed(file) if head[4:8] == b"ftyp" else None)
    if known:
        return known
    if other := _starting(head, _OTHERS):
        raise _unsupported(other)
    raise PhotoReadError(
        f"it is not a picture file: it begins with {head[:8]!r}; expected JPEG, PNG, TIFF, WebP, AVIF or HEIC"
    )
