"""HEIF: reading and writing through the optional package pillow-heif (extra `heic`), and the facts in its boxes.

Decoders do not pass on bit depth, colour codes and gain maps of AVIF and HEIF files, so they are read here from the
boxes: ISO/IEC 14496-12 (boxes), 23008-12 (items and properties), AV1-ISOBMFF 1.2 (av1C), ITU-T H.273 (codes).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image
from ..errors import MissingExtraError
from .colour import chosen
from .photo import Photo, bands, check_size, interleaved, rescaled

__all__ = ["HeifFacts", "brands", "encoded", "facts", "read"]

_Box: TypeAlias = tuple[bytes, bytes]  # kind, body

_DEEP_BITS = 10  # what a 16-bit photo is written with: phones and their viewers know no more
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

_LARGEST_META = 64 << 20
_ALPHA_KINDS = {"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", "urn:mpeg:hevc:2015:auxid:1"}
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
    icc, colour_notices = chosen(image.info.get("icc_profile"), found.code_points, grey=found.monochrome)
    pixels, alpha = _split(image)
    several = (f"the file holds {len(image)} images; only the main one is kept",) if len(image) > 1 else ()
    return Photo(
        pixels=pixels,
        alpha=alpha,
        grey=found.monochrome,
        icc=icc,
        exif=image.info.get("exif"),
        xmp=image.info.get("xmp"),
        format="HEIF",
        notices=colour_notices + several + found.notices,
    )


def encoded(photo: Photo, quality: int) -> bytes:
    """A photo as HEIC (HEVC, 4:4:4): 8 bits, or 10 for a 16-bit photo. MissingExtraError without pillow-heif."""
    library = _pillow_heif()
    samples = np.concatenate([interleaved(photo, rows, dtype=photo.pixels.dtype.type) for rows in bands(*photo.size)])
    height, width, channels = samples.shape
    mode = _MODES[channels]
    if samples.dtype == np.uint16:
        mode, samples = f"{mode};{_DEEP_BITS}", rescaled(samples, 65535, 2**_DEEP_BITS - 1)
    metadata = {"exif": photo.exif, "xmp": photo.xmp, "icc_profile": photo.icc}
    options = {name: value for name, value in metadata.items() if value}
    data, buffer = np.ascontiguousarray(samples).data.cast("B"), io.BytesIO()
    library.encode(mode, (width, height), data, buffer, quality=quality, chroma=444, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class HeifFacts:
    """Facts about the primary image of a file."""

    bits: int | None = None  # per sample
    monochrome: bool = False
    code_points: tuple[int, int] | None = None  # colour primaries, transfer characteristics
    gain_map: bool = False
    others: tuple[str, ...] = ()  # kinds of further images in the file (depth, mattes ...) except alpha

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices about images in the file that the result will not have."""
        lost = ("the HDR gain map is not kept: the result is the standard (SDR) photo",) if self.gain_map else ()
        return lost + ((f"further images in the file are not kept: {', '.join(self.others)}",) if self.others else ())


def facts(file: IO[bytes]) -> HeifFacts:
    """Read the facts of an AVIF or HEIF file; struct.error, IndexError or ValueError where its boxes are damaged."""
    meta = _top_box(file, b"meta")[4:]
    table, entry = _find(meta, b"iprp"), _find(meta, b"pitm")
    primary = struct.unpack_from(">I" if entry[0] else ">H", entry, 4)[0]
    properties = list(_boxes(_find(table, b"ipco")))
    indices = [index for item, own in _associations(_find(table, b"ipma")) if item == primary for index in own]
    own = [properties[index - 1] for index in indices if 0 < index <= len(properties)]
    codes = [struct.unpack_from(">HH", body, 4) for kind, body in own if kind == b"colr" and body[:4] == b"nclx"]
    auxiliary = {body[4:].split(b"\0")[0].decode("latin-1") for kind, body in properties if kind == b"auxC"}
    gain_maps = {kind for kind in auxiliary if any(mark in kind for mark in _GAIN_MAP_KINDS)}
    return HeifFacts(
        bits=_bits(own),
        monochrome=_monochrome(own),
        code_points=codes[0] if codes else None,
        gain_map=bool(gain_maps) or b"tmap" in _item_kinds(meta),
        others=tuple(sorted(auxiliary - gain_maps - _ALPHA_KINDS)),
    )


def brands(file: IO[bytes]) -> tuple[str, ...]:
    """Major brand, then the compatible ones; empty for a file without an ftyp box."""
    body = _top_box(file, b"ftyp")
    codes = [body[:4], *(body[at : at + 4] for at in range(8, len(body), 4))]
    return tuple(code.decode("latin-1") for code in codes if code)


def _pillow_heif() -> Any:
    try:
        return import_module("pillow_heif")
    except ImportError as error:
        raise MissingExtraError("pillow-heif", "heic", "a HEIC photo") from error


def _split(image: Any) -> tuple[Image, Image | None]:
    """Pixels (H, W, 3) and alpha of a pillow_heif.HeifFile; 10 and 12 bits become 16."""
    name, _, bits = image.mode.partition(";")
    samples: NDArray[Any] = np.asarray(image)
    samples = samples if samples.ndim == 3 else samples[..., np.newaxis]
    if bits not in ("", "8", "16"):
        samples = rescaled(samples, 2 ** int(bits) - 1, 65535)
    alpha = samples[..., -1].copy() if name in ("LA", "RGBA") else None
    colours = samples[..., :3] if name in ("RGB", "RGBA") else np.repeat(samples[..., :1], 3, axis=2)
    return np.ascontiguousarray(colours), alpha


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
        yield kind, data[start:end]
        at = end


def _find(data: bytes, kind: bytes) -> bytes:
    """Body of the first box of a kind; empty if there is none."""
    return next((body for found, body in _boxes(data) if found == kind), b"")


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


def _item_kinds(meta: bytes) -> set[bytes]:
    """Four-letter types of all items."""
    body = _find(meta, b"iinf")
    entries = [entry for kind, entry in _boxes(body[8 if body[0] else 6 :]) if kind == b"infe" and entry[0] >= 2]
    return {entry[10:14] if entry[0] == 3 else entry[8:12] for entry in entries}


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


def _bits(own: list[_Box]) -> int | None:
    for kind, body in own:
        if kind == b"pixi":
            return max(body[5:])
        if kind == b"av1C":
            high, twelve = body[2] & 0x40, body[2] & 0x20
            return 8 if not high else 12 if twelve else 10
    return None


def _monochrome(own: list[_Box]) -> bool:
    """By the AV1 or HEVC configuration (ISO/IEC 14496-15, 8.3.2: chroma format 0)."""
    return any((kind == b"av1C" and body[2] & 0x10) or (kind == b"hvcC" and body[16] & 3 == 0) for kind, body in own)
