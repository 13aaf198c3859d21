"""HEIC through the optional package."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pocketprior.core.errors import MissingExtraError, PhotoReadError, PhotoUnsupportedError
from pocketprior.core.photo import heif
from pocketprior.core.photo.colour import DISPLAY_P3, profile
from pocketprior.core.photo.heif import HeifFacts, brands, facts
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo

Bytes = NDArray[np.uint8]
Deep = NDArray[np.uint16]


def test_missing_extra(tmp_path: Path, rgb: Bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Photo(rgb), tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r"pocketprior\[heic\]"):
        read(tmp_path / "a.heic")
    with pytest.raises(MissingExtraError, match=r"pocketprior\[heic\]"):
        write(Photo(rgb), tmp_path / "b.heic")
    assert [path.name for path in tmp_path.iterdir()] == ["a.heic"]


def test_package_is_not_loaded_before_it_is_needed(run_python: Callable[[str], str]) -> None:
    assert run_python("import sys, pocketprior.core.photo.io; print('pillow_heif' in sys.modules)") == "False"


def test_10_bits_are_read_and_written(tmp_path: Path) -> None:
    """Every tenth of the 1024 levels, in large flat patches: HEVC keeps them to one level."""
    levels = np.arange(0, 1024, 93, dtype=np.uint16)
    wide = np.floor(levels.astype(float) * 65535 / 1023 + 0.5).astype(np.uint16)
    pixels = np.repeat(np.repeat(wide, 16)[np.newaxis, :, np.newaxis], 16, 0) * np.ones(3, np.uint16)
    notices = write(Photo(pixels), tmp_path / "a.heic", quality=100)
    assert notices == ("16-bit samples were rounded to 10 bits, as .heic has no more",)
    photo = read(tmp_path / "a.heic")
    assert photo.pixels.dtype == np.uint16
    assert np.abs(photo.pixels.astype(int) - pixels).max() <= 65
    assert photo.pixels.max() == 65535


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(
    tmp_path: Path, rgb: Bytes, orientation: int, make_exif: Callable[..., bytes]
) -> None:
    """libheif turns the image; the EXIF orientation that phones leave in the file must not turn it again."""
    buffer = io.BytesIO()
    pillow_heif.encode("RGB", (40, 24), rgb.tobytes(), buffer, quality=100, chroma=444, exif=make_exif(orientation))
    (tmp_path / "a.heic").write_bytes(buffer.getvalue())
    image = Image.fromarray(rgb)
    image.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    photo = read(tmp_path / "a.heic")
    assert photo.pixels.shape == expected.shape
    assert np.abs(photo.pixels.astype(int) - expected).max() < 16
    write(photo, tmp_path / "b.heic")
    assert np.abs(read(tmp_path / "b.heic").pixels.astype(int) - expected).max() < 16
    exif = Image.Exif()
    exif.load(photo.exif or b"")
    assert exif[274] == 1


def test_metadata(tmp_path: Path, rgb: Bytes, make_exif: Callable[..., bytes]) -> None:
    exif = read_exif = make_exif(1, size=(24, 40))
    write(Photo(rgb, exif=exif, xmp=b"<x:xmpmeta/>"), tmp_path / "a.heic")
    photo = read(tmp_path / "a.heic")
    assert photo.exif is not None
    assert photo.exif.index(b"MAKER") == read_exif.index(b"MAKER")
    assert photo.xmp == b"<x:xmpmeta/>"


def test_further_images_are_told(tmp_path: Path, rgb: Bytes) -> None:
    several = pillow_heif.from_bytes("RGB", (40, 24), rgb.tobytes())
    several.add_frombytes("RGB", (40, 24), rgb.tobytes())
    several.save(tmp_path / "a.heic", quality=90)
    assert read(tmp_path / "a.heic").notices == ("the file holds 2 images; only the main one is kept",)


def test_gain_map_is_told(tmp_path: Path, rgb: Bytes) -> None:
    """An Apple gain map property, put into a file that libheif wrote."""
    write(Photo(rgb), tmp_path / "a.heic")
    data = (tmp_path / "a.heic").read_bytes()
    kind = b"urn:com:apple:photo:2020:aux:hdrgainmap\0"
    box = struct.pack(">I4sI", 12 + len(kind), b"auxC", 0) + kind
    at = data.index(b"ipco") - 4
    end = at + struct.unpack_from(">I", data, at)[0]
    # The properties grow; items are found by offsets into the file, which therefore move as well.
    grown = bytearray(data[:end] + box + data[end:])
    for name in (b"meta", b"iprp", b"ipco"):
        start = data.index(name) - 4
        struct.pack_into(">I", grown, start, struct.unpack_from(">I", data, start)[0] + len(box))
    (tmp_path / "b.heic").write_bytes(moved(bytes(grown), len(box)))
    photo = read(tmp_path / "b.heic")
    assert photo.notices == ("the HDR gain map is not kept: the result is the standard (SDR) photo",)
    assert np.array_equal(photo.pixels, read(tmp_path / "a.heic").pixels)


def moved(data: bytes, by: int) -> bytes:
    """A file whose item offsets (iloc, as libheif writes it: 4-byte offsets and lengths) are larger."""
    out = bytearray(data)
    at = data.index(b"iloc") + 4
    version, sizes = data[at], data[at + 4]
    assert sizes == 0x44
    base = data[at + 5] >> 4
    count = struct.unpack_from(">H", data, at + 6)[0]
    at += 8
    for _ in range(count):
        at += 2 + (2 if version else 0) + 2 + base
        extents = struct.unpack_from(">H", data, at)[0]
        at += 2
        for _ in range(extents):
            struct.pack_into(">I", out, at, struct.unpack_from(">I", data, at)[0] + by)
            at += 8
    return bytes(out)


def test_damaged_file(tmp_path: Path, deep: Deep) -> None:
    write(Photo(deep), tmp_path / "a.heic")
    data = (tmp_path / "a.heic").read_bytes()
    for length in range(20, len(data), 37):
        (tmp_path / "b.heic").write_bytes(data[:length])
        with pytest.raises(PhotoReadError):
            read(tmp_path / "b.heic")


Bytes = NDArray[np.uint8]


def avif(pixels: Bytes, **options: object) -> bytes:
    buffer = io.BytesIO()
    subsampling = "4:4:4" if pixels.ndim == 3 else "4:0:0"
    Image.fromarray(pixels).save(buffer, "AVIF", quality=90, subsampling=subsampling, **options)
    return buffer.getvalue()


def heif_file(mode: str, pixels: NDArray[np.generic], **options: object) -> bytes:
    buffer = io.BytesIO()
    size = pixels.shape[1], pixels.shape[0]
    pillow_heif.encode(mode, size, pixels.tobytes(), buffer, quality=95, chroma=444, **options)
    return buffer.getvalue()


def with_codes(data: bytes, primaries: int, transfer: int) -> bytes:
    """The file with other colour codes in its nclx property."""
    at = data.index(b"nclx") + 4
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


@pytest.mark.parametrize(
    ("pixels", "grey"), [(np.zeros((8, 8), np.uint8), True), (np.zeros((8, 8, 3), np.uint8), False)]
)
def test_plain_files(pixels: Bytes, grey: bool) -> None:
    for data in (avif(pixels), heif_file("L" if grey else "RGB", pixels)):
        found = facts(io.BytesIO(data))
        assert (found.bits, found.monochrome, found.gain_map, found.others) == (8, grey, False, ())
        assert found.code_points == (1, 13)


def test_alpha_is_no_foreign_image() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    assert facts(io.BytesIO(avif(pixels))).others == ()
    assert facts(io.BytesIO(heif_file("RGBA", pixels))).others == ()


def test_bit_depth() -> None:
    assert facts(io.BytesIO(heif_file("RGB;10", np.zeros((8, 8, 3), np.uint16)))).bits == 10


def test_brands() -> None:
    assert brands(io.BytesIO(avif(np.zeros((8, 8, 3), np.uint8))))[0] == "avif"
    assert brands(io.BytesIO(b"no boxes in here, but some text")) == ()


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_colour_codes_become_a_profile(tmp_path: Path, rgb: Bytes, suffix: str) -> None:
    data = avif(rgb) if suffix == ".avif" else heif_file("RGB", rgb)
    (tmp_path / f"a{suffix}").write_bytes(with_codes(data, 12, 13))
    photo = read(tmp_path / f"a{suffix}")
    assert photo.icc == profile(DISPLAY_P3)
    assert photo.notices == ()


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_curves_are_refused(tmp_path: Path, rgb: Bytes, suffix: str, transfer: int) -> None:
    data = avif(rgb) if suffix == ".avif" else heif_file("RGB", rgb)
    (tmp_path / f"a{suffix}").write_bytes(with_codes(data, 9, transfer))
    with pytest.raises(PhotoUnsupportedError, match="HDR image"):
        read(tmp_path / f"a{suffix}")


def grown(data: bytes, path: tuple[bytes, ...], addition: bytes) -> bytes:
    """The file with bytes appended to a box, given by its path; sizes and item offsets follow."""
    starts: list[int] = []
    at = 0
    for kind in path:
        at = data.index(kind, at) - 4
        starts.append(at)
        at += 8
    end = starts[-1] + struct.unpack_from(">I", data, starts[-1])[0]
    out = bytearray(data[:end] + addition + data[end:])
    for start in starts:
        struct.pack_into(">I", out, start, struct.unpack_from(">I", out, start)[0] + len(addition))
    return bytes(out)


def auxiliary(kind: bytes) -> bytes:
    return struct.pack(">I4sI", 12 + len(kind) + 1, b"auxC", 0) + kind + b"\0"


@pytest.mark.parametrize(
    ("kind", "gain_map"),
    [
        (b"urn:com:apple:photo:2020:aux:hdrgainmap", True),
        (b"urn:iso:std:iso:ts:21496:-1", True),
        (b"urn:com:apple:photo:2018:aux:portraiteffectsmatte", False),
        (b"urn:mpeg:hevc:2015:auxid:2", False),
    ],
)
def test_auxiliary_images(kind: bytes, gain_map: bool) -> None:
    data = grown(heif_file("RGB", np.zeros((8, 8, 3), np.uint8)), (b"meta", b"iprp", b"ipco"), auxiliary(kind))
    found = facts(io.BytesIO(data))
    assert found.gain_map == gain_map
    assert found.others == (() if gain_map else (kind.decode(),))


def test_tone_mapped_item_is_a_gain_map() -> None:
    item = struct.pack(">I4sIHH4s", 21, b"infe", 2 << 24, 9, 0, b"tmap") + b"\0"
    found = facts(io.BytesIO(grown(avif(np.zeros((8, 8, 3), np.uint8)), (b"meta", b"iinf"), item)))
    assert found.gain_map


@pytest.mark.parametrize("cut", range(12, 200, 9))
def test_cut_boxes(tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.avif").write_bytes(avif(np.zeros((8, 8, 3), np.uint8))[:cut])
    with pytest.raises(PhotoReadError):
        read(tmp_path / "a.avif")


def test_deep_avif_is_told(tmp_path: Path, rgb: Bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: no encoder for 10 bits is at hand."""
    (tmp_path / "a.avif").write_bytes(avif(rgb))
    monkeypatch.setattr(heif, "facts", lambda _: HeifFacts(10, False, (1, 13), False, ()))
    assert read(tmp_path / "a.avif").notices == ("the AVIF file has 10 bits per sample, of which 8 are read",)


def box(kind: bytes, body: bytes, *, wide: bool = False) -> bytes:
    """A box with its size in 4 or in 8 bytes."""
    return (
        struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body
        if wide
        else struct.pack(">I4s", 8 + len(body), kind) + body
    )


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("flags", "bits"), [(0x00, 8), (0x40, 10), (0x60, 12)])
def test_depth_by_the_codec(wide: bool, flags: int, bits: int) -> None:
    """Files without a pixi property; boxes with large sizes; item numbers of 4 bytes."""
    item = struct.pack(">I", 7)
    properties = box(b"ipco", box(b"av1C", bytes([0x81, 0, flags, 0]), wide=wide), wide=wide)
    links = box(b"ipma", struct.pack(">II", 1 << 24 | 1, 1) + item + struct.pack(">BH", 1, 0x8001))
    meta = bytes(4) + box(b"pitm", bytes([1, 0, 0, 0]) + item) + box(b"iinf", struct.pack(">IH", 0, 0))
    meta += box(b"iprp", properties + links)
    found = facts(io.BytesIO(box(b"free", bytes(10), wide=wide) + box(b"meta", meta, wide=wide)))
    assert (found.bits, found.monochrome, found.code_points) == (bits, False, None)


def test_impossible_box_size() -> None:
    with pytest.raises(ValueError, match="a box of 4 bytes"):
        facts(io.BytesIO(box(b"meta", bytes(4) + struct.pack(">I4s", 4, b"iprp") + bytes(20))))
