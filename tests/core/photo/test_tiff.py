"""The TIFF writer, checked by other readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image

from pocketprior.core.errors import PhotoUnsupportedError, PhotoWriteError
from pocketprior.core.photo import photo as photo_module
from pocketprior.core.photo.colour import DISPLAY_P3, profile
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo

Bytes = NDArray[np.uint8]
Deep = NDArray[np.uint16]


@pytest.mark.parametrize(
    ("dtype", "grey", "transparent"),
    [
        (d, g, t)
        for d in (np.uint8, np.uint16)
        for g in (False, True)
        for t in (False, True)
        if (d, g, t) != (np.uint16, 1, 1)
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("band", [90, 10**6])
def test_other_readers_see_the_same(
    tmp_path: Path,
    deep: Deep,
    dtype: type,
    grey: bool,
    transparent: bool,
    order: str,
    band: int,
    make_exif: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(photo_module, "_BAND_PIXELS", band)
    pixels = deep.astype(dtype)
    pixels = np.repeat(pixels[..., :1], 3, 2) if grey else pixels
    alpha = pixels[..., 0] | 1 if transparent else None
    write(Photo(pixels, alpha=alpha, grey=grey, exif=make_exif(1, order)), tmp_path / "a.tif")
    stored = pixels[..., :1] if grey else pixels
    expected = np.concatenate([stored, alpha[..., np.newaxis]], 2) if alpha is not None else stored
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.byteorder == order
        assert np.array_equal(file.asarray().reshape(expected.shape), expected)
    back = read(tmp_path / "a.tif")
    assert np.array_equal(back.pixels, pixels)
    assert back.grey == grey
    if not transparent:
        seen = cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(seen.reshape(expected.shape), expected if grey else expected[..., ::-1])


def test_deep_grey_with_alpha_is_refused(tmp_path: Path, deep: Deep) -> None:
    with pytest.raises(PhotoWriteError, match=r"write \.png"):
        write(Photo(deep, alpha=deep[..., 0], grey=True), tmp_path / "a.tif")


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_keeps_its_bytes_and_places(
    tmp_path: Path, rgb: Bytes, order: str, make_exif: Callable[..., bytes]
) -> None:
    exif = make_exif(1, order)
    write(Photo(rgb, exif=exif, dpi=(300, 150)), tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    assert data[8 : len(exif)] == exif[8:]
    with Image.open(tmp_path / "a.tif") as image:
        tags = image.getexif()
        assert tags[ExifTags.Base.Make] == "Camera"
        assert tags[ExifTags.Base.Orientation] == 1
        inner = tags.get_ifd(ExifTags.IFD.Exif)
        assert inner[0xA002] == 30
        assert inner[0x927C].startswith(b"MAKER")
        assert image.info["dpi"] == (300, 150)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages) == 1
        assert file.pages[0].tags["Make"].value == "Camera"


def test_exif_survives_reading_and_writing_tiff(tmp_path: Path, rgb: Bytes, make_exif: Callable[..., bytes]) -> None:
    write(Photo(rgb, exif=make_exif(1)), tmp_path / "a.tif")
    write(read(tmp_path / "a.tif"), tmp_path / "b.tif")
    write(read(tmp_path / "b.tif"), tmp_path / "c.jpg")
    with Image.open(tmp_path / "c.jpg") as image:
        assert image.getexif()[ExifTags.Base.Make] == "Camera"
        inner = image.getexif().get_ifd(ExifTags.IFD.Exif)
        assert inner[0x927C].startswith(b"MAKER")
        assert (inner[0xA002], inner[0xA003]) == (40, 24)


def test_profile_xmp_iptc(tmp_path: Path, rgb: Bytes) -> None:
    photo = Photo(rgb, icc=profile(DISPLAY_P3), xmp=b"<x:xmpmeta/>", iptc=b"\x1c\x02\x78\x00\x03abc")
    assert write(photo, tmp_path / "a.tif") == ()
    back = read(tmp_path / "a.tif")
    assert (back.icc, back.xmp, back.iptc) == (photo.icc, photo.xmp, photo.iptc)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.info["icc_profile"] == photo.icc


def test_iptc_that_is_called_longs_is_told(tmp_path: Path, rgb: Bytes) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", rgb, photometric="rgb", extratags=[(33723, 4, 2, (0x0378021C, 0x63626100), True)]
    )
    photo = read(tmp_path / "a.tif")
    assert photo.iptc is None
    assert "33723" in photo.notices[0]


def test_pages_are_refused(tmp_path: Path, rgb: Bytes) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(3):
            file.write(rgb, photometric="rgb")
    with pytest.raises(PhotoUnsupportedError, match="3 pages"):
        read(tmp_path / "a.tif")


def test_smaller_copies_are_no_pages(tmp_path: Path, rgb: Bytes) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(rgb, photometric="rgb")
        file.write(rgb[::2, ::2], photometric="rgb", subfiletype=1)
    assert np.array_equal(read(tmp_path / "a.tif").pixels, rgb)


@pytest.mark.parametrize("tags", [{"subfiletype": 1}, {"extratags": [(50706, 1, 4, (1, 4, 0, 0), True)]}])
def test_camera_raw_is_refused(tmp_path: Path, rgb: Bytes, tags: dict[str, object]) -> None:
    """DNG, NEF, ARW: TIFF files whose first image is a small preview."""
    tifffile.imwrite(tmp_path / "a.dng", rgb, photometric="rgb", **tags)
    with pytest.raises(PhotoUnsupportedError, match="camera raw"):
        read(tmp_path / "a.dng")
