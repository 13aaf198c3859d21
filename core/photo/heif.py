"""HEIF: reading and writing through the optional package pillow-heif (extra `heic`), and the facts in its boxes.

Decoders do not pass on bit depth, colour codes and gain maps of AVIF and HEIF files, so they are read here from the
boxes: ISO/IEC 14496-12 (boxes), 23008-12 (items and properties), AV1-ISOBMFF 1.2 (av1C), ITU-T H.273 (codes).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image
from ..errors import MissingExtraError
from .decode import auxiliary_notices, check_size, profile
from .layout import bands, rescaled
from .photo import Photo, interleaved

__all__ = ["HeifFacts", "brands", "encoded", "facts", "read"]

_DEEP_BITS = 10  # what a 16-bit photo is written with: phones and their viewers know no more
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

_LARGEST_META = 64 << 20
_ALPHA_KINDS = ("urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", "urn:mpeg:hevc:2015:auxid:1")
_GAIN_MAP_KINDS = ("hdrgainmap", "iso:ts:21496")


def read(file: IO[bytes], max_pixels: int) -> Photo:
    """Read a HEIF file. libheif turns the image upright itself; EXIF orientation says nothing in this format.

    Raises MissingExtraError, PhotoTooLargeError, PhotoUnsupportedError, or what libheif raises for a damaged file.
    """
    library = _pillow_heif()
    found = facts(file)
    file.seek(0)
    image = library.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    check_size(image.size, max_pixels)
    icc, colour_notices = profile(image.info.get("icc_profile"), found.code_points, grey=found.monochrome)
    pixels, alpha = _split(image)
    return Photo(
        pixels=pixels,
        alpha=alpha,
        grey=found.monochrome,
        icc=icc,
        exif=image.info.get("exif"),
        xmp=image.info.get("xmp"),
        format="HEIF",
        notices=colour_notices + _notices(image, found),
    )


def encoded(photo: Photo, quality: int) -> bytes:
    """A photo as HEIC (HEVC, 4:4:4): 8 bits, or 10 for a 16-bit photo. MissingExtraError without pillow-heif."""
    library = _pillow_heif()
    mode, samples = _samples(photo)
    height, width = photo.size
    metadata = {"exif": photo.exif, "xmp": photo.xmp, "icc_profile": photo.icc}
    options = {name: value for name, value in metadata.items() if value}
    data, buffer = np.ascontiguousarray(samples).data.cast("B"), io.BytesIO()
    library.encode(mode, (width, height), data, buffer, quality=quality, chroma=444, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class HeifFacts:
    """Facts about the primary image of a file."""

    bits: int | None  # per sample
    monochrome: bool
    code_points: tuple[int, int] | None  # colour primaries, transfer characteristics
    gain_map: bool
    others: tuple[str, ...]  # kinds of further images in the file (depth, mattes ...) except alpha


def facts(file: IO[bytes]) -> HeifFacts:
    """Read the facts of an AVIF or HEIF file; struct.error, IndexError or ValueError where its boxes are damaged."""
    meta = _top_box(file, b"meta")[4:]
    own = _properties_of(meta, _primary_item(meta))
    kinds = _auxiliary_kinds(meta)
    gain_maps = [kind for kind in kinds if any(mark in kind for mark in _GAIN_MAP_KINDS)]
    return HeifFacts(
        bits=_bits(own),
        monochrome=_monochrome(own),
        code_points=_code_points(own),
        gain_map=bool(gain_maps) or b"tmap" in _item_kinds(meta),
        others=tuple(kind for kind in kinds if kind not in gain_maps),
    )


def brands(file: IO[bytes]) -> tuple[str, ...]:
    """Major brand, then the compatible ones; empty for a file without an ftyp box."""
    body = _top_box(file, b"ftyp")
    codes = [body[:4], *(body[at : at + 4] for at in range(8, len(body), 4))]
    return tuple(code.decode("latin-1") for code in codes if code)


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


def _sixteen_bits(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    """10 and 12 bits to 16; 8 and 16 as they are."""
    return samples if bits in (8, 16) else rescaled(samples, 2**bits - 1, 65535)


def _split(image: _HeifFile) -> tuple[Image, Image | None]:
    """Pixels (H, W, 3) and alpha."""
    name, _, bits = image.mode.partition(";")
    samples: NDArray[Any] = np.asarray(image)
    samples = _sixteen_bits(samples if samples.ndim == 3 else samples[..., np.newaxis], int(bits or 8))
    alpha = samples[..., -1].copy() if name in ("LA", "RGBA") else None
    colours = samples[..., :3] if name in ("RGB", "RGBA") else np.repeat(samples[..., :1], 3, axis=2)
    return np.ascontiguousarray(colours), alpha


def _notices(image: _HeifFile, found: HeifFacts) -> tuple[str, ...]:
    count = len(image)
    several = (f"the file holds {count} images; only the main one is kept",) if count > 1 else ()
    return several + auxiliary_notices(found)


def _samples(photo: Photo) -> tuple[str, NDArray[Any]]:
    """pillow_heif's mode and the samples (H, W, C) of a photo."""
    parts = [interleaved(photo, rows, dtype=photo.pixels.dtype.type) for rows in bands(*photo.size)]
    samples = np.concatenate(parts)
    mode = _MODES[samples.shape[2]]
    if samples.dtype == np.uint8:
        return mode, samples
    return f"{mode};{_DEEP_BITS}", rescaled(samples, 65535, 2**_DEEP_BITS - 1)


@dataclass(frozen=True)
class _Box:
    kind: bytes
    body: bytes

    @property
    def version(self) -> int:
        return self.body[0]


def _boxes(data: bytes) -> Iterator[_Box]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            size, start = struct.unpack_from(">Q", data, start)[0], start + 8
        end = at + size if size else len(data)
        if end < start:
            raise ValueError(f"a box of {size} bytes")
        yield _Box(kind, data[start:end])
        at = end


def _find(data: bytes, kind: bytes) -> bytes:
    """Body of the first box of a kind; empty if there is none."""
    return next((box.body for box in _boxes(data) if box.kind == kind), b"")


def _top_box(file: IO[bytes], kind: bytes) -> bytes:
    """Body of the first box of a kind at the top of the file; empty if there is none."""
    file.seek(0)
    while len(header := file.read(8)) == 8:
        size, found = struct.unpack(">I4s", header)
        if size == 1:
            size = struct.unpack(">Q", file.read(8))[0] - 8
        if found == kind:
            return file.read(min(size - 8 if size else _LARGEST_META, _LARGEST_META))
        if size < 8:
            break
        file.seek(size - 8, 1)
    return b""


def _primary_item(meta: bytes) -> int:
    body = _find(meta, b"pitm")
    return struct.unpack_from(">I" if body[0] else ">H", body, 4)[0]


def _item_kinds(meta: bytes) -> set[bytes]:
    """Four-letter types of all items."""
    body = _find(meta, b"iinf")
    entries = [box for box in _boxes(body[8 if body[0] else 6 :]) if box.kind == b"infe" and box.version >= 2]
    return {box.body[10:14] if box.version == 3 else box.body[8:12] for box in entries}


def _associations(body: bytes) -> Iterator[tuple[int, list[int]]]:
    """(item, 1-based property indices) of an ipma box."""
    wide_items, wide_indices = body[0] >= 1, body[3] & 1
    count, at = struct.unpack_from(">I", body, 4)[0], 8
    for _ in range(count):
        item, number = struct.unpack_from(">IB" if wide_items else ">HB", body, at)
        at += 5 if wide_items else 3
        indices = struct.unpack_from(f">{number}{'H' if wide_indices else 'B'}", body, at)
        at += number * (2 if wide_indices else 1)
        yield item, [index & (0x7FFF if wide_indices else 0x7F) for index in indices]


def _properties_of(meta: bytes, item: int) -> list[_Box]:
    everything = _find(meta, b"iprp")
    properties = list(_boxes(_find(everything, b"ipco")))
    indices = [i for found, each in _associations(_find(everything, b"ipma")) if found == item for i in each]
    return [properties[index - 1] for index in indices if 0 < index <= len(properties)]


def _code_points(own: list[_Box]) -> tuple[int, int] | None:
    codes = [struct.unpack_from(">HH", b.body, 4) for b in own if b.kind == b"colr" and b.body[:4] == b"nclx"]
    return codes[0] if codes else None


def _bits(own: list[_Box]) -> int | None:
    for box in own:
        if box.kind == b"pixi":
            return max(box.body[5:])
        if box.kind == b"av1C":
            high, twelve = box.body[2] & 0x40, box.body[2] & 0x20
            return 8 if not high else 12 if twelve else 10
    return None


def _monochrome(own: list[_Box]) -> bool:
    """By the AV1 or HEVC configuration (ISO/IEC 14496-15, 8.3.2: chroma format 0)."""
    return any(
        (box.kind == b"av1C" and box.body[2] & 0x10 > 0) or (box.kind == b"hvcC" and box.body[16] & 3 == 0)
        for box in own
    )


def _auxiliary_kinds(meta: bytes) -> tuple[str, ...]:
    properties = _boxes(_find(_find(meta, b"iprp"), b"ipco"))
    kinds = [box.body[4:].split(b"\0")[0].decode("latin-1") for box in properties if box.kind == b"auxC"]
    return tuple(sorted({kind for kind in kinds if kind not in _ALPHA_KINDS}))
