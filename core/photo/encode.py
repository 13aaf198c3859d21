"""The file formats that photos are written in, and what each can hold.

JPEG, WebP and AVIF are written by Pillow: a photo goes into it band by band and comes out as bytes. PNG and TIFF are
written here, because Pillow cannot write 16-bit colour, and in bands, because photos are large.

PNG: W3C PNG, third edition. TIFF: TIFF 6.0, with Deflate and the horizontal predictor (TIFF technical note 3), which
every reader knows. EXIF is a TIFF structure itself, so a TIFF file begins with it, unchanged: offsets in it, those of
maker notes included, stay valid.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from PIL import Image as Pillow

from ..arrays import Image
from ..errors import PhotoWriteError
from . import jpeg, metadata
from .colour import to_srgb
from .photo import Photo, bands, interleaved

__all__ = ["FILE_FORMATS", "FileFormat", "avif", "fitted", "jpeg_file", "png", "tiff", "webp"]

_FULL_CHROMA = "4:4:4"
_EXIF_PREFIX = b"Exif\0\0"

_LARGEST_PNG_SIDE = 2**31 - 1
_SEGMENT_HEADERS = {"exif": 6, "xmp": 29, "iptc": 26}  # field: bytes before the data in its JPEG segment

_EFFORT = 6  # of zlib, 1 to 9
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
_SUB = 1  # filter: difference to the pixel on the left
_INCH_M = 0.0254

_Order: TypeAlias = Literal["<", ">"]
_TiffEntry: TypeAlias = tuple[int, int, bytes]  # type, count, value

_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 3, 4, 5, 7
_LAYOUTS = {_SHORT: "H", _LONG: "I"}
_DEFLATE, _HORIZONTAL, _CHUNKY, _INCH, _UNASSOCIATED_ALPHA = 8, 2, 1, 2, 2
_MIN_IS_BLACK, _RGB = 1, 2
_DPI_SCALE = 10000
_NO_EXIF = b"II*\0\0\0\0\0"
_FIRST_DIRECTORY_AT = 4  # where the header says where the first directory is
# Tags of an EXIF block that stay; besides those: orientation, which is 1, resolution and its unit, page name.
_KEPT_TAGS = metadata.DESCRIPTIVE_TAGS | {274, 282, 283, 285, 296}


@dataclass(frozen=True)
class FileFormat:
    """What a file format can hold."""

    suffixes: tuple[str, ...]
    quality: int | None  # default, 1 to 100; None: lossless
    bits: int = 8  # per sample that a 16-bit photo keeps
    alpha: bool = True
    iptc: bool = False
    text: bool = False
    largest_side: int = _LARGEST_PNG_SIDE  # pixels


# Quality 95 with full chroma is visually lossless for photos; a source's own, lower quality is not kept, because it
# would put the blocks back that the restoration took away.
FILE_FORMATS: dict[str, FileFormat] = {
    "AVIF": FileFormat((".avif",), quality=90, largest_side=32768),
    "HEIF": FileFormat((".heic", ".heif", ".hif"), quality=95, bits=10, largest_side=16384),
    "JPEG": FileFormat((".jpg", ".jpeg", ".jpe", ".jfif"), quality=95, alpha=False, iptc=True, largest_side=65500),
    "PNG": FileFormat((".png",), quality=None, bits=16, text=True),
    "TIFF": FileFormat((".tif", ".tiff"), quality=None, bits=16, iptc=True),
    "WEBP": FileFormat((".webp",), quality=95, largest_side=16383),
}


def fitted(photo: Photo, format: str) -> tuple[Photo, tuple[str, ...]]:
    """The photo with what a format (a key of FILE_FORMATS) can hold, and a notice for each thing left out.

    Raises PhotoWriteError for what must not be left out silently: transparency, and sides that are too long.
    """
    target, alpha, deep = FILE_FORMATS[format], photo.alpha, photo.pixels.dtype == np.uint16
    suffix, notices = target.suffixes[0], tuple[str, ...]()
    if max(photo.size) > target.largest_side:
        raise PhotoWriteError(
            f"the photo is {photo.size[1]} x {photo.size[0]} pixels, {suffix} holds at most {target.largest_side} a "
            "side; write .png or .tif"
        )
    if format == "TIFF" and photo.grey and alpha is not None and deep:
        raise PhotoWriteError("16-bit grey with transparency is a TIFF that hardly any program reads; write .png")
    if alpha is not None and not target.alpha:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            raise PhotoWriteError(f"the photo has transparent parts, which {suffix} cannot hold; write .png")
        photo = replace(photo, alpha=None)
    if deep and target.bits < 16:
        notices += (f"16-bit samples were rounded to {target.bits} bits, as {suffix} has no more",)
    for field, replacement, notice in _homeless(photo, format):
        photo = replace(photo, **{field: replacement})
        notices += (notice,)
    return photo, notices


def jpeg_file(photo: Photo, quality: int) -> bytes:
    """JPEG with full chroma; the gain map of an HDR photo goes behind it."""
    kept = photo.gain_map
    options: dict[str, Any] = {
        "quality": quality,
        "subsampling": _FULL_CHROMA,
        "icc_profile": photo.icc,
        "exif": _EXIF_PREFIX + photo.exif if photo.exif else None,
        "xmp": jpeg.with_gain_map_length(photo.xmp, kept) if kept else photo.xmp,
        "dpi": photo.dpi,
        "comment": dict(photo.text).get("Comment", "").encode(),
        "extra": jpeg.extra_segments(photo.iptc, kept),
    }
    data = _encoded(photo, "JPEG", options)
    return jpeg.attach(data, kept) if kept else data


def webp(photo: Photo, quality: int) -> bytes:
    """Lossy WebP. The format halves chroma resolution and has neither grey nor 16 bits."""
    photo = _rgb(photo)
    options = {"quality": quality, "icc_profile": photo.icc, "exif": photo.exif, "xmp": photo.xmp}
    return _encoded(photo, "WEBP", options)


def avif(photo: Photo, quality: int) -> bytes:
    """AVIF with full chroma, 8 bits; grey without alpha stays one channel. Orientation is not in EXIF here."""
    photo = _rgb(photo) if photo.alpha is not None else photo
    options = {
        "quality": quality,
        "subsampling": "4:0:0" if photo.grey else _FULL_CHROMA,
        "icc_profile": photo.icc,
        "exif": metadata.without_orientation(photo.exif) if photo.exif else None,
        "xmp": photo.xmp,
    }
    return _encoded(photo, "AVIF", options)


def png(photo: Photo, file: IO[bytes]) -> None:
    """Write a photo as PNG: 8 or 16 bit, grey or RGB, with or without alpha, as the photo is."""
    height, width = photo.size
    depth = photo.pixels.dtype
    file.write(_PNG_SIGNATURE)
    header = struct.pack(">IIBBBBB", width, height, 8 * depth.itemsize, _COLOUR_TYPES[_channels(photo)], 0, 0, 0)
    _put(file, b"IHDR", header)
    _put_metadata(file, photo)
    packer = zlib.compressobj(_EFFORT, memLevel=9)
    for rows in bands(height, width):
        packed = packer.compress(_filtered(interleaved(photo, rows, dtype=depth.type)))
        if packed:
            _put(file, b"IDAT", packed)
    _put(file, b"IDAT", packer.flush())
    _put(file, b"IEND", b"")


def tiff(photo: Photo, file: IO[bytes]) -> None:
    """Write a photo as TIFF: 8 or 16 bit, grey or RGB, with or without alpha, as the photo is."""
    exif = photo.exif or _NO_EXIF
    order: _Order = "<" if exif[:2] == b"II" else ">"
    file.write(exif)
    parts = list(bands(*photo.size))
    offsets: list[int] = []
    sizes: list[int] = []
    for rows in parts:
        offsets.append(_pad(file))
        samples = interleaved(photo, rows, dtype=photo.pixels.dtype.type)
        sizes.append(file.write(zlib.compress(_predicted(samples, order), _EFFORT)))
    at = _pad(file)
    entries = _described(photo, order) | _structure(photo, order, parts[0].stop, offsets, sizes)
    file.write(_directory(order, entries, at))
    file.seek(_FIRST_DIRECTORY_AT)
    file.write(struct.pack(order + "I", at))


def _encoded(photo: Photo, format: str, options: dict[str, Any]) -> bytes:
    """Of 8-bit samples. To memory first: Pillow's own writing to files overlooks short writes on a full disk."""
    height, width = photo.size
    mode = ("L" if photo.grey else "RGB") + ("A" if photo.alpha is not None else "")
    image = Pillow.new(mode, (width, height))
    for rows in bands(height, width):
        samples = interleaved(photo, rows, dtype=np.uint8)
        band = Pillow.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
        image.paste(band, (0, rows.start))
    buffer = io.BytesIO()
    image.save(buffer, format, **{name: value for name, value in options.items() if value})
    return buffer.getvalue()


def _rgb(photo: Photo) -> Photo:
    """A grey photo with its profile settled, for formats without grey: three equal sRGB channels."""
    if not photo.grey:
        return photo
    convert, _ = to_srgb(photo.icc, "L")
    opaque = replace(photo, alpha=None)
    pixels = np.empty(photo.pixels.shape, np.uint8)
    for rows in bands(*photo.size):
        band = interleaved(opaque, rows, dtype=np.uint8)[..., 0]
        pixels[rows] = np.asarray(convert(Pillow.fromarray(band)))
    return replace(photo.with_pixels(pixels), grey=False, icc=None)


def _homeless(photo: Photo, format: str) -> Iterator[tuple[str, object, str]]:
    """(field, replacement, notice) of what the format cannot hold."""
    target = FILE_FORMATS[format]
    suffix = target.suffixes[0]
    if photo.gain_map and format != "JPEG":
        yield "gain_map", None, f"the HDR gain map is not kept in {suffix}; write .jpg to keep it"
    if photo.iptc and not target.iptc:
        yield "iptc", None, f"the IPTC data are not kept in {suffix}; write .jpg or .tif to keep them"
    kept = photo.text if target.text else tuple(t for t in photo.text if format == "JPEG" and t[0] == "Comment")
    if len(kept) < len(photo.text):
        lost = ", ".join(keyword for keyword, _ in photo.text if keyword not in dict(kept))
        yield "text", kept, f"the text notes ({lost}) are not kept in {suffix}; write .png to keep them"
    for field, header in _SEGMENT_HEADERS.items() if format == "JPEG" else ():
        if len(getattr(photo, field) or b"") + header > jpeg.LARGEST_SEGMENT:
            notice = f"the {field.upper()} data are longer than 64 KiB and not kept in {suffix}"
            yield field, None, f"{notice}; write .png or .tif to keep them"


def _channels(photo: Photo) -> int:
    return (1 if photo.grey else 3) + (photo.alpha is not None)


def _put(file: IO[bytes], kind: bytes, body: bytes) -> None:
    file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


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
    for name, text in photo.text:
        keyword = name.encode("latin-1", "replace")[:79] or b"Comment"  # 1 to 79 bytes of Latin-1 (11.3.3.1)
        _put(file, b"iTXt", keyword + bytes(5) + text.replace("\0", "").encode())


def _filtered(samples: Image) -> bytes:
    """Rows of big-endian samples (n, W, C) behind the "sub" filter, one filter byte each."""
    rows, _, channels = samples.shape
    raw = samples.astype(samples.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, -1)
    step = channels * samples.dtype.itemsize
    out = np.empty((rows, 1 + raw.shape[1]), np.uint8)
    out[:, 0] = _SUB
    out[:, 1 : 1 + step] = raw[:, :step]
    np.subtract(raw[:, step:], raw[:, :-step], out=out[:, 1 + step :])
    return out.tobytes()


def _described(photo: Photo, order: _Order) -> dict[int, _TiffEntry]:
    """The TIFF entries that say what the photo is."""
    entries = {tag: entry for tag, entry in metadata.first_directory(photo.exif or b"").items() if tag in _KEPT_TAGS}
    if photo.dpi:
        across, down = (struct.pack(order + "II", round(dpi * _DPI_SCALE), _DPI_SCALE) for dpi in photo.dpi)
        entries |= {282: (_RATIONAL, 1, across), 283: (_RATIONAL, 1, down), 296: _numbers(order, _SHORT, _INCH)}
    blobs = {700: (_BYTE, photo.xmp), 33723: (_UNDEFINED, photo.iptc), 34675: (_UNDEFINED, photo.icc)}
    return entries | {tag: (kind, len(value), value) for tag, (kind, value) in blobs.items() if value}


def _structure(photo: Photo, order: _Order, rows: int, offsets: list[int], sizes: list[int]) -> dict[int, _TiffEntry]:
    """The TIFF entries that say how samples are stored."""
    height, width = photo.size
    channels = _channels(photo)
    shorts = {
        258: [8 * photo.pixels.dtype.itemsize] * channels,
        259: [_DEFLATE],
        262: [_MIN_IS_BLACK if photo.grey else _RGB],
        277: [channels],
        284: [_CHUNKY],
        317: [_HORIZONTAL],
        338: [_UNASSOCIATED_ALPHA] if photo.alpha is not None else [],
    }
    longs = {256: [width], 257: [height], 273: offsets, 278: [rows], 279: sizes}
    kinds = ((_SHORT, shorts), (_LONG, longs))
    return {tag: _numbers(order, kind, *values) for kind, table in kinds for tag, values in table.items() if values}


def _directory(order: _Order, entries: dict[int, _TiffEntry], at: int) -> bytes:
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


def _predicted(samples: Image, order: _Order) -> bytes:
    """Differences to the pixel on the left, modulo the sample range; samples: (n, W, C)."""
    differences = samples.copy()
    differences[:, 1:] -= samples[:, :-1]
    return differences.astype(samples.dtype.newbyteorder(order)).tobytes()


def _pad(file: IO[bytes]) -> int:
    """Make the position even, as TIFF wants it, and return it."""
    file.write(bytes(file.tell() % 2))
    return file.tell()


def _numbers(order: _Order, kind: int, *values: int) -> _TiffEntry:
    return kind, len(values), struct.pack(f"{order}{len(values)}{_LAYOUTS[kind]}", *values)
