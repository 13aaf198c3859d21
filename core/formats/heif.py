"""HEIC and HEIF, through the optional package pillow-heif (extra `heic`)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib import import_module
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image
from ..errors import MissingExtraError
from ..photo import Photo, interleaved
from . import boxes
from .decoding import auxiliary_notices, check_size, profile
from .samples import bands, rescaled

__all__ = ["encoded", "read"]

_DEEP_BITS = 10  # what a 16-bit photo is written with: phones and their viewers know no more
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


class _HeifFile(Protocol):
    """The part of pillow_heif.HeifFile used here; np.asarray takes it."""

    mode: str
    size: tuple[int, int]
    info: Mapping[str, Any]

    def __len__(self) -> int: ...

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class _PillowHeif(Protocol):
    def open_heif(self, fp: IO[bytes], *, convert_hdr_to_8bit: bool, hdr_to_16bit: bool) -> _HeifFile: ...

    def encode(self, mode: str, size: tuple[int, int], data: memoryview, fp: IO[bytes], **options: Any) -> None: ...


def _pillow_heif() -> _PillowHeif:
    try:
        return cast(_PillowHeif, import_module("pillow_heif"))
    except ImportError as error:
        raise MissingExtraError("pillow-heif", "heic", "a HEIC photo") from error


def _levels(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    """10 and 12 bits to 16; 8 and 16 as they are."""
    return samples if bits in (8, 16) else rescaled(samples, 2**bits - 1, 65535)


def _split(picture: _HeifFile) -> tuple[Image, Image | None]:
    """Pixels (H, W, 3) and alpha."""
    name, _, bits = picture.mode.partition(";")
    samples: NDArray[Any] = np.asarray(picture)
    samples = _levels(samples if samples.ndim == 3 else samples[..., np.newaxis], int(bits or 8))
    alpha = samples[..., -1].copy() if name in ("LA", "RGBA") else None
    colours = samples[..., :3] if name in ("RGB", "RGBA") else np.repeat(samples[..., :1], 3, axis=2)
    return np.ascontiguousarray(colours), alpha


def _notices(picture: _HeifFile, found: boxes.Facts) -> tuple[str, ...]:
    count = len(picture)
    several = (f"the file holds {count} pictures; only the main one is kept",) if count > 1 else ()
    return several + auxiliary_notices(found)


def read(file: IO[bytes], max_pixels: int) -> Photo:
    """Read a HEIF file. libheif turns the picture upright itself; EXIF orientation says nothing in this format.

    Raises MissingExtraError, PhotoTooLargeError, PhotoUnsupportedError, or what libheif raises for a damaged file.
    """
    library = _pillow_heif()
    found = boxes.facts(file)
    file.seek(0)
    picture = library.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    check_size(picture.size, max_pixels)
    icc, colour_notices = profile(picture.info.get("icc_profile"), found.code_points, grey=found.monochrome)
    pixels, alpha = _split(picture)
    return Photo(
        pixels=pixels,
        alpha=alpha,
        grey=found.monochrome,
        icc=icc,
        exif=picture.info.get("exif"),
        xmp=picture.info.get("xmp"),
        format="HEIF",
        notices=colour_notices + _notices(picture, found),
    )


def _coded(photo: Photo) -> tuple[str, NDArray[Any]]:
    """pillow_heif's mode and the samples (H, W, C) of a photo."""
    parts = [interleaved(photo, rows, dtype=photo.pixels.dtype.type) for rows in bands(*photo.size)]
    samples = np.concatenate(parts)
    mode = _MODES[samples.shape[2]]
    if samples.dtype == np.uint8:
        return mode, samples
    return f"{mode};{_DEEP_BITS}", rescaled(samples, 65535, 2**_DEEP_BITS - 1)


def encoded(photo: Photo, quality: int) -> bytes:
    """A photo as HEIC (HEVC, 4:4:4): 8 bits, or 10 for a 16-bit photo. MissingExtraError without pillow-heif."""
    library = _pillow_heif()
    mode, samples = _coded(photo)
    height, width = photo.size
    beside = {"exif": photo.exif, "xmp": photo.xmp, "icc_profile": photo.icc}
    options = {name: value for name, value in beside.items() if value}
    data, buffer = np.ascontiguousarray(samples).data.cast("B"), io.BytesIO()
    library.encode(mode, (width, height), data, buffer, quality=quality, chroma=444, **options)
    return buffer.getvalue()
