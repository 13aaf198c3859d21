"""JPEG: the parts that Pillow does not handle. Segments, IPTC, and the HDR gain map behind the photo.

ITU-T T.81 annex B (segments), CIPA DC-007 (MPF: several images in one file), Adobe's gain map specification 1.0
(Ultra HDR), ISO 21496-1.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from .metadata import IPTC_RESOURCE
from .photo import TRANSPOSES, GainMap

__all__ = ["LARGEST_SEGMENT", "attach", "extra_segments", "gain_map", "settled_xmp", "with_gain_map_length"]

LARGEST_SEGMENT = 65533  # bytes of payload

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP0, _APP1, _APP2, _APP13, _APP15 = 0xE0, 0xE1, 0xE2, 0xED, 0xEF
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_GAIN_MAP_MARKS = (_ISO_GAIN_MAP, b"http://ns.adobe.com/hdr-gain-map/1.0/", b"urn:com:apple:photo:2020:aux:hdrgainmap")
_MPF = b"MPF\0"
_MP_NUMBER, _MP_ENTRIES = 0xB001, 0xB002
_PREVIEWS = (0x010001, 0x010002)  # MP types "large thumbnail": the same photo, smaller
_PHOTOSHOP = b"Photoshop 3.0\0"
_GAIN_MAP_ITEM = re.compile(rb"""<[^<>]*Item:Semantic\s*=\s*["']GainMap["'][^<>]*>""")
_MOTION_PHOTO = re.compile(rb"""((?:MotionPhoto|MicroVideo)(?:\s*=\s*["']|>))1""")
_EXTENDED_XMP = re.compile(rb"""\s*xmpNote:HasExtendedXMP\s*=\s*["'][^"']*["']""")
_GAIN_MAP_QUALITY = 95


def gain_map(file: IO[bytes], image: JpegImageFile, orientation: int) -> tuple[GainMap | None, tuple[str, ...]]:
    """The HDR gain map of an opened JPEG, upright, and notices about other images in the file."""
    if "mp" not in image.info:
        promised = any(mark in body for name, body in image.applist for mark in _GAIN_MAP_MARKS if name != "COM")
        lost = "the HDR gain map could not be found in the file; the result is the SDR photo"
        return None, (lost,) if promised else ()
    try:
        images = _further_images(file, image.info)
        maps = [data for data in images if _is_gain_map(data)]
        found = _upright(maps[0], orientation) if maps else None
    except (KeyError, ValueError, OSError, SyntaxError, struct.error):
        return None, ("the further images in this JPEG (HDR gain map or others) are damaged and were left out",)
    rest = len(images) - (1 if maps else 0)
    notices = (f"the file holds {rest} further images (stereo or series), which are not kept",) if rest else ()
    if found is None:
        return None, notices
    marker = next((b for name, b in image.applist if name == "APP2" and b.startswith(_ISO_GAIN_MAP)), b"")
    return GainMap(found, marker), notices


def attach(jpeg: bytes, kept: GainMap) -> bytes:
    """A JPEG file with the gain map behind the photo and an MP index that points at it."""
    at = next(s.start for s in _segments(jpeg) if not _APP0 <= s.marker <= _APP15)
    length = len(_segment(_APP2, _mpf_payload(0, 0, 0)))
    total = len(jpeg) + length
    header = at + 4 + len(_MPF)  # offsets count from the byte order mark
    index = _segment(_APP2, _mpf_payload(total, len(kept.jpeg), total - header))
    return jpeg[:at] + index + jpeg[at:] + kept.jpeg


def with_gain_map_length(xmp: bytes | None, kept: GainMap) -> bytes | None:
    """XMP whose directory of items has the length of the gain map, which turning may have changed."""

    def patch(item: re.Match[bytes]) -> bytes:
        return re.sub(rb"""(Item:Length\s*=\s*["'])\d+""", rb"\g<1>%d" % len(kept.jpeg), item[0])

    return _GAIN_MAP_ITEM.sub(patch, xmp) if xmp else None


def extra_segments(iptc: bytes | None, kept: GainMap | None) -> bytes:
    """APP13 with IPTC-IIM records, and APP2, by which ISO 21496-1 readers know that a gain map follows; where given."""
    segments = b""
    if iptc:
        resource = b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
        segments += _segment(_APP13, _PHOTOSHOP + resource)
    return segments + (_segment(_APP2, kept.marker) if kept and kept.marker else b"")


def settled_xmp(xmp: bytes | None) -> tuple[bytes | None, tuple[str, ...]]:
    """XMP that no longer announces things elsewhere in the JPEG that the result will not have, and notices."""
    notices: tuple[str, ...] = ()
    if xmp and _EXTENDED_XMP.search(xmp):
        xmp = _EXTENDED_XMP.sub(b"", xmp)
        notices += ("the second part of the XMP data (over 64 KiB) is not kept",)
    if xmp and _MOTION_PHOTO.search(xmp):
        xmp = _MOTION_PHOTO.sub(rb"\g<1>0", xmp)
        notices += ("the video of this motion photo is not kept",)
    return xmp, notices


class _Segment(NamedTuple):
    marker: int
    start: int  # of the 0xFF before the marker
    payload: bytes


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _segments(jpeg: bytes) -> Iterator[_Segment]:
    """Segments before the first scan."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker in (_SOS, _EOI):
            return
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        length = struct.unpack_from(">H", jpeg, at + 2)[0]
        yield _Segment(marker, at, jpeg[at + 4 : at + 2 + length])
        at += 2 + length


def _further_images(file: IO[bytes], info: dict[Any, Any]) -> list[bytes]:
    """The JPEG files behind the photo by its MP index (CIPA DC-007, 5.2.3), previews left out.

    Raises struct.error, KeyError or ValueError where the index is damaged or an image cut off.
    """
    mpf: bytes = info["mp"]
    order = {b"II*\0": "<", b"MM\0*": ">"}[mpf[:4]]
    at = struct.unpack_from(order + "I", mpf, 4)[0]
    tags = range(struct.unpack_from(order + "H", mpf, at)[0])
    directory = [struct.unpack_from(order + "HHII", mpf, at + 2 + 12 * index) for index in tags]
    start, length = {tag: (value, count) for tag, _, count, value in directory}[_MP_ENTRIES]
    entries = [struct.unpack_from(order + "III", mpf, start + 16 * index) for index in range(1, length // 16)]
    images: list[bytes] = []
    for attribute, size, offset in entries:  # offset: from the MP header
        if attribute & 0xFFFFFF in _PREVIEWS:
            continue
        file.seek(info["mpoffset"] + offset)
        data = file.read(size)
        if len(data) != size or data[:2] != b"\xff\xd8":
            raise ValueError("a further image is cut off")
        images.append(data)
    return images


def _is_gain_map(jpeg: bytes) -> bool:
    return any(mark in segment.payload for segment in _segments(jpeg) for mark in _GAIN_MAP_MARKS)


def _upright(jpeg: bytes, orientation: int) -> bytes:
    """A gain map turned like its photo; its metadata segments are kept as they are."""
    if orientation == 1:
        return jpeg
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        turned = image.transpose(TRANSPOSES[orientation])
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", quality=_GAIN_MAP_QUALITY, subsampling=0)
    kept = b"".join(
        _segment(marker, payload)
        for marker, _, payload in _segments(jpeg)
        if _APP1 <= marker <= _APP15 and not payload.startswith(_MPF)
    )
    return b"\xff\xd8" + kept + buffer.getvalue()[2:]


def _mpf_payload(photo_size: int, map_size: int, map_offset: int) -> bytes:
    """MP index of two images; sizes in bytes, offset from the MP header (CIPA DC-007, 5.2)."""
    first, second = 0x030000, 0x000000  # types: baseline primary, undefined
    after_directory = 8 + 2 + 3 * 12 + 4
    directory = struct.pack(">HHHI4s", 3, 0xB000, 7, 4, b"0100")
    directory += struct.pack(">HHII", _MP_NUMBER, 4, 1, 2)
    directory += struct.pack(">HHIII", _MP_ENTRIES, 7, 32, after_directory, 0)
    entries = struct.pack(">IIIHH", first, photo_size, 0, 0, 0)
    entries += struct.pack(">IIIHH", second, map_size, map_offset, 0, 0)
    return _MPF + b"MM\0*" + struct.pack(">I", 8) + directory + entries
