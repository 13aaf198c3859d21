"""What AVIF and HEIF say in their boxes and decoders do not pass on: bit depth, colour codes, gain maps.

ISO/IEC 14496-12 (boxes), 23008-12 (items and properties), AV1-ISOBMFF 1.2 (av1C), ITU-T H.273 (codes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

__all__ = ["Facts", "brands", "facts"]

_LARGEST_META = 64 << 20
_ALPHA_KINDS = ("urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", "urn:mpeg:hevc:2015:auxid:1")
_GAIN_MAP_KINDS = ("hdrgainmap", "iso:ts:21496")


@dataclass(frozen=True)
class Facts:
    """Of the primary picture of a file."""

    bits: int | None  # per sample
    monochrome: bool
    code_points: tuple[int, int] | None  # colour primaries, transfer characteristics
    gain_map: bool
    others: tuple[str, ...]  # kinds of further pictures in the file (depth, mattes ...), alpha left out


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


def brands(file: IO[bytes]) -> tuple[str, ...]:
    """Major brand, then the compatible ones; empty for a file without an ftyp box."""
    body = _top_box(file, b"ftyp")
    codes = [body[:4], *(body[at : at + 4] for at in range(8, len(body), 4))]
    return tuple(code.decode("latin-1") for code in codes if code)


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


def facts(file: IO[bytes]) -> Facts:
    """Read the facts of an AVIF or HEIF file; struct.error, IndexError or ValueError where its boxes are damaged."""
    meta = _top_box(file, b"meta")[4:]
    own = _properties_of(meta, _primary_item(meta))
    kinds = _auxiliary_kinds(meta)
    gain_maps = [kind for kind in kinds if any(mark in kind for mark in _GAIN_MAP_KINDS)]
    return Facts(
        bits=_bits(own),
        monochrome=_monochrome(own),
        code_points=_code_points(own),
        gain_map=bool(gain_maps) or b"tmap" in _item_kinds(meta),
        others=tuple(kind for kind in kinds if kind not in gain_maps),
    )
