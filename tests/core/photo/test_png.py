"""The PNG writer, checked by other readers, and the chunks Pillow does not pass on."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pocketprior.core.errors import PhotoReadError, PhotoUnsupportedError
from pocketprior.core.photo import decode, encode
from pocketprior.core.photo import photo as photo_module
from pocketprior.core.photo.colour import DISPLAY_P3, SRGB, profile
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo

Bytes = NDArray[np.uint8]
Deep = NDArray[np.uint16]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(path: Path, added: bytes) -> None:
    """Put a chunk behind the header of a PNG."""
    data = path.read_bytes()
    path.write_bytes(data[:33] + added + data[33:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
def test_other_readers_see_the_same(tmp_path: Path, deep: Deep, dtype: type, grey: bool, transparent: bool) -> None:
    pixels = deep.astype(dtype)
    pixels = np.repeat(pixels[..., :1], 3, 2) if grey else pixels
    alpha = pixels[..., 0] | 1 if transparent else None
    write(Photo(pixels, alpha=alpha, grey=grey), tmp_path / "a.png")
    seen = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert seen.dtype == dtype
    if grey and not transparent:
        assert np.array_equal(seen, pixels[..., 0])
        return
    assert np.array_equal(seen[..., 2::-1], pixels)
    assert not transparent or np.array_equal(seen[..., 3], alpha)


@pytest.mark.parametrize("band", [1, 90, 10**6])
def test_bands_do_not_show(tmp_path: Path, deep: Deep, monkeypatch: pytest.MonkeyPatch, band: int) -> None:
    monkeypatch.setattr(photo_module, "_BAND_PIXELS", band)
    write(Photo(deep), tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png").pixels, deep)


def test_metadata_is_where_others_look_for_it(tmp_path: Path, rgb: Bytes) -> None:
    text = (("Title", "Böckchen"), ("Grüße", "日本"), ("", "no keyword"))
    photo = Photo(
        rgb, icc=profile(DISPLAY_P3), exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0", xmp=b"<x/>", dpi=(300, 150), text=text
    )
    assert write(photo, tmp_path / "a.png") == ()
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.info["icc_profile"] == photo.icc
        assert image.info["exif"] == b"Exif\0\0" + (photo.exif or b"")
        assert image.info["xmp"] == b"<x/>"
        assert [round(number) for number in image.info["dpi"]] == [300, 150]
        assert image.text["Title"] == "Böckchen"
        assert image.text["Grüße"] == "日本"
    back = read(tmp_path / "a.png")
    assert dict(back.text) == {"Title": "Böckchen", "Grüße": "日本", "Comment": "no keyword"}
    assert (back.icc, back.xmp) == (photo.icc, photo.xmp)


def test_deflated_size_is_reasonable(tmp_path: Path) -> None:
    """Not larger than twice what Pillow makes of it."""
    y, x = np.mgrid[:200, :300]
    noise = np.random.default_rng(0).integers(0, 4, (200, 300, 3))
    pixels = (np.stack([x // 2, y, x // 3 + y // 3], -1) % 250 + noise).astype(np.uint8)
    write(Photo(pixels), tmp_path / "a.png")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert (tmp_path / "a.png").stat().st_size < 1.2 * buffer.tell()


@pytest.mark.parametrize("kind", ["transfer", "display"])
def test_coded_colour(tmp_path: Path, rgb: Bytes, kind: str) -> None:
    write(Photo(rgb, icc=profile(SRGB)), tmp_path / "a.png")
    codes = bytes([9, 16, 0, 1]) if kind == "transfer" else bytes([12, 13, 0, 1])
    with_chunk(tmp_path / "a.png", chunk(b"cICP", codes))
    if kind == "transfer":
        with pytest.raises(PhotoUnsupportedError, match="PQ"):
            read(tmp_path / "a.png")
    else:
        assert read(tmp_path / "a.png").icc == profile(DISPLAY_P3)


def test_gamma_and_corners(tmp_path: Path, rgb: Bytes) -> None:
    write(Photo(rgb), tmp_path / "a.png")
    with_chunk(tmp_path / "a.png", chunk(b"gAMA", struct.pack(">I", 100_000)))
    photo = read(tmp_path / "a.png")
    assert photo.icc == profile(SRGB, 1.0)
    assert "tone curve" in photo.notices[0]


def test_gamma_beside_srgb_is_ignored(tmp_path: Path, rgb: Bytes) -> None:
    write(Photo(rgb), tmp_path / "a.png")
    with_chunk(tmp_path / "a.png", chunk(b"sRGB", b"\0") + chunk(b"gAMA", struct.pack(">I", 100_000)))
    assert read(tmp_path / "a.png").icc is None


def test_changed_image_data_are_noticed(tmp_path: Path, rgb: Bytes) -> None:
    """Pillow shows other pixels instead; any bit of the data counts."""
    write(Photo(rgb), tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"IDAT") + 4
    for at in range(start, len(data) - 16):
        changed = bytearray(data)
        changed[at] ^= 0x10
        (tmp_path / "b.png").write_bytes(changed)
        with pytest.raises(PhotoReadError, match="damaged"):
            read(tmp_path / "b.png")


def test_code_points_are_looked_for_before_the_image_only(rgb: Bytes) -> None:
    buffer = io.BytesIO()
    encode.png(Photo(rgb), buffer)
    assert decode.png_code_points(buffer) is None
