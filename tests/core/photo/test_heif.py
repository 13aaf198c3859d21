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

from pocketprior.core.errors import MissingExtraError, PhotoReadError
from pocketprior.core.photo.io import Photo, read, write

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
