"""Photo files: read into upright pixels, written so that nothing but the pixels changes.

Colour is preserved: pixels are the file's own encoded values, and its RGB or grey profile goes into the result (why:
`colour.py`); CMYK and Lab become sRGB. EXIF orientation is applied once, while reading, and reset. Alpha passes
unchanged; colours under fully transparent pixels are replaced by the nearest visible ones. An HDR gain map is copied
from JPEG to JPEG. Whatever cannot be kept becomes a notice: in `Photo.notices` when reading, returned by `write` when
writing. The content decides the format of a file, not its name.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from PIL import Image as Pillow
from PIL import ImageFile

from ..errors import PhotoError, PhotoReadError, PhotoTooLargeError, PhotoUnsupportedError, PhotoWriteError, UsageError
from ..files import atomic_output, failure_reason
from ..limits import MAX_PIXELS
from . import encode, heif, jpeg, metadata
from .decode import decode
from .encode import FILE_FORMATS, fitted
from .photo import Photo, fill_hidden

__all__ = ["SUFFIXES", "format_of", "is_photo", "read", "write"]

SUFFIXES = tuple(sorted(suffix for target in FILE_FORMATS.values() for suffix in target.suffixes))

# Exceptions of encoders for images that they cannot take, and of Pillow, libheif and our parsers for damaged files.
_ENCODER_FAILURES = (ArithmeticError, OSError, RuntimeError, ValueError, struct.error)
_DAMAGE = (*_ENCODER_FAILURES, EOFError, LookupError, SyntaxError, TypeError)

_pillow_lock = threading.Lock()

_ENCODERS: dict[str, Callable[[Photo, int], bytes]] = {
    "AVIF": encode.avif,
    "HEIF": heif.encoded,
    "JPEG": encode.jpeg_file,
    "WEBP": encode.webp,
}
_WRITERS: dict[str, Callable[[Photo, IO[bytes]], None]] = {"PNG": encode.png, "TIFF": encode.tiff}

_SIGNATURES = {  # formats that are read, and others that are known by name
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
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


def is_photo(path: str | Path) -> bool:
    """Whether a file found in a folder is a photo to work on, by its name; hidden files are not."""
    name = Path(path).name
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo. The content decides the format, not the name.

    8 bits per sample give uint8 pixels, 9 to 16 bits uint16 (white = 65535).

    max_pixels: larger images are refused before they are decoded. A 100-megapixel JPEG takes about 0.75 GB
    while it is read and 0.3 GB afterwards.

    Raises PhotoReadError (missing, empty, damaged, truncated, no image), PhotoTooLargeError,
    PhotoUnsupportedError (animations, pages, HDR, float, camera raw), MissingExtraError (HEIC without its extra).
    """
    if max_pixels < 1:
        raise UsageError(f"expected max_pixels of at least 1, got {max_pixels}")
    path = Path(path)
    with _read_errors(path), _opened(path) as file:
        photo = _decoded(file, max_pixels)
        if photo.alpha is not None:
            fill_hidden(photo.pixels, photo.alpha)
        exif, exif_notices = metadata.upright(photo.exif, photo.size)
        xmp, xmp_notices = jpeg.settled_xmp(photo.xmp) if photo.format == "JPEG" else (photo.xmp, ())
    notices = photo.notices + exif_notices + xmp_notices
    return replace(photo, exif=exif, xmp=metadata.upright_xmp(xmp), notices=notices, source=path.absolute())


def write(photo: Photo, path: str | Path, *, overwrite: bool = False, quality: int | None = None) -> tuple[str, ...]:
    """Write a photo in the format of the suffix; return notices about what that format could not hold.

    PNG and TIFF are lossless and keep 16 bits, HEIC keeps 10 of them, the others 8. Transparency needs a format
    that has it. The file appears complete or not at all: it is written next to its place, flushed and renamed.

    quality: 1 to 100 for the lossy formats (default 95, AVIF 90); lossless ones have none.

    Raises PhotoWriteError (unknown suffix, file exists without `overwrite`, the file is the photo's own source, disk
    full, no permission, too large or transparent for the format), MissingExtraError (HEIC without its extra).
    """
    path = Path(path)
    format = _format_for(path)
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"expected a quality from 1 to 100, got {quality}")
    source = photo.source
    if source and source.exists() and path.exists() and os.path.samefile(source, path):
        raise PhotoWriteError(f"{path}: it is the photo itself, which is never overwritten; choose another name")
    try:
        kept, notices = fitted(photo, format)
        with atomic_output(path, overwrite=overwrite) as temporary, open(temporary, "wb") as file:
            _put(kept, format, quality or FILE_FORMATS[format].quality or 100, file)
    except PhotoWriteError as error:
        raise PhotoWriteError(f"{path}: {error}") from error
    except OSError as error:
        raise PhotoWriteError(f"{path}: it cannot be written: {failure_reason(error)}") from error
    return notices


def format_of(file: IO[bytes]) -> str:
    """AVIF, HEIF, JPEG, PNG, TIFF or WEBP, whatever the file is called.

    Raises PhotoUnsupportedError for other known formats, PhotoReadError for the rest.
    """
    file.seek(0)
    head = file.read(_LONGEST)
    if not head:
        raise PhotoReadError("the file is empty; it may not have been copied completely")
    kind = _kind(file, head)
    if kind is None:
        raise PhotoReadError(
            f"it is not an image file: it begins with {head[:8]!r}; expected JPEG, PNG, TIFF, WebP, AVIF or HEIC"
        )
    if kind not in FILE_FORMATS:
        advice = "develop it to a 16-bit TIFF or PNG first" if kind == "camera raw" else "convert it to PNG first"
        raise PhotoUnsupportedError(f"it is a {kind} file, which is not read here; {advice}")
    return kind


def _kind(file: IO[bytes], head: bytes) -> str | None:
    """The name of the format of a file that begins with `head`; None for no image."""
    if head[8:12] == _CANON_RAW_MARK:
        return "camera raw"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    found = next((name for signature, name in _SIGNATURES.items() if head.startswith(signature)), None)
    if found or head[4:8] != b"ftyp":
        return found
    brands = heif.brands(file)
    if _AVIF_BRANDS.intersection(brands):
        return "AVIF"
    if brands and brands[0] in _SEQUENCE_BRANDS:
        raise PhotoUnsupportedError("it is a HEIF sequence of several frames; give a file with a single image")
    if _HEIF_BRANDS.intersection(brands):
        return "HEIF"
    return "camera raw" if brands and brands[0] == "crx " else None


@contextmanager
def _read_errors(path: Path) -> Generator[None]:
    """Name the file in every error, and make errors of decoders ours."""
    try:
        yield
    except PhotoError as error:
        raise type(error)(f"{path}: {error}") from error
    except (MemoryError, Pillow.DecompressionBombError) as error:
        raise PhotoTooLargeError(f"{path}: it is too large to decode ({error}); give a smaller photo") from error
    except PermissionError as error:
        raise PhotoReadError(f"{path}: permission denied; make the file readable") from error
    except _DAMAGE as error:
        raise PhotoReadError(
            f"{path}: the file is damaged or incomplete ({error}); use an undamaged copy, or repair it first"
        ) from error


def _opened(path: Path) -> IO[bytes]:
    if not path.exists():
        raise PhotoReadError("there is no such file; check the path")
    if not path.is_file():
        raise PhotoReadError("it is not a regular file; give the path of a photo")
    return open(path, "rb")


def _decoded(file: IO[bytes], max_pixels: int) -> Photo:
    format = format_of(file)
    with _pillow_strict(max_pixels) as caught:
        photo = heif.read(file, max_pixels) if format == "HEIF" else decode(file, format, max_pixels)
    heard = dict.fromkeys(f"the file is irregular: {warning.message}" for warning in caught)
    return replace(photo, notices=photo.notices + tuple(heard))


@contextmanager
def _pillow_strict(max_pixels: int) -> Generator[list[warnings.WarningMessage]]:
    """Our pixel limit, no grey filling of truncated files, warnings collected: all three are globals of Pillow."""
    with _pillow_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = Pillow.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Pillow.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = max_pixels, False
        try:
            yield caught
        finally:
            Pillow.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def _format_for(path: Path) -> str:
    for format, target in FILE_FORMATS.items():
        if path.suffix.lower() in target.suffixes:
            return format
    given = f"the suffix '{path.suffix}'" if path.suffix else "no suffix"
    raise PhotoWriteError(f"{path}: it has {given}; a photo can be written as: {', '.join(SUFFIXES)}")


def _put(photo: Photo, format: str, quality: int, file: IO[bytes]) -> None:
    if format in _WRITERS:
        _WRITERS[format](photo, file)
        return
    try:
        data = _ENCODERS[format](photo, quality)
    except _ENCODER_FAILURES as error:
        raise PhotoWriteError(f"the {format} encoder cannot take this photo ({error}); write .png or .tif") from error
    file.write(data)
