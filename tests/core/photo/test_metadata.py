"""What lies beside the pixels, in the odd forms files have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from pocketprior.core.photo import metadata
from pocketprior.core.photo.io import read
from pocketprior.core.photo.metadata import first_directory, upright, upright_xmp, without_orientation

Bytes = NDArray[np.uint8]


def test_exif_as_png_text(tmp_path: Path, rgb: Bytes, make_exif: Callable[..., bytes]) -> None:
    """ImageMagick's way; the text itself is not carried on."""
    exif = b"Exif\0\0" + make_exif(6)
    digits = exif.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{lines}\n")
    text.add_text("Title", "kept")
    Image.fromarray(rgb).save(tmp_path / "a.png", pnginfo=text)
    photo = read(tmp_path / "a.png")
    assert photo.size == (40, 24)
    assert photo.exif is not None
    assert b"MAKER" in photo.exif
    assert photo.text == (("Title", "kept"),)


def test_damaged_exif_as_png_text(tmp_path: Path, rgb: Bytes) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n 4\nno hexadecimal digits")
    Image.fromarray(rgb).save(tmp_path / "a.png", pnginfo=text)
    photo = read(tmp_path / "a.png")
    assert photo.exif is None
    assert "cannot be kept" in photo.notices[0]


@pytest.mark.parametrize(
    "key", ["dpi", "icc_profile", "exif", "transparency", "xmp", "comment", "gamma", "chromaticity"]
)
def test_text_with_a_name_pillow_uses_itself(tmp_path: Path, rgb: Bytes, key: str) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text(key, "nonsense")
    Image.fromarray(rgb).save(tmp_path / "a.png", pnginfo=text)
    photo = read(tmp_path / "a.png")
    assert np.array_equal(photo.pixels, rgb)
    assert photo.alpha is None
    assert (key, "nonsense") in photo.text


@pytest.mark.parametrize("dpi", [(0, 0), (1e9, 300), "300", (float("nan"), 1), (300,), None])
def test_senseless_resolution(dpi: object) -> None:
    image = Image.new("L", (1, 1))
    image.info["dpi"] = dpi
    assert metadata.dpi(image) is None


@pytest.mark.parametrize("value", [0, 9, "6", (6, 6), None])
def test_senseless_orientation(value: object) -> None:
    image = Image.new("L", (1, 1))
    if value is not None:
        image.getexif()[ExifTags.Base.Orientation] = value
    assert metadata.orientation(image) == 1


def test_tiff_tags_that_describe_the_photo(tmp_path: Path, rgb: Bytes) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        rgb,
        photometric="rgb",
        description="A duck",
        software="Camera 1.0",
        resolution=(300, 300),
        resolutionunit="inch",
        extratags=[(315, "s", 0, "Somebody", True), (33432, "s", 0, "Mine", True)],
        metadata=None,
    )
    photo = read(tmp_path / "a.tif")
    tags = Image.Exif()
    tags.load(photo.exif or b"")
    assert dict(tags) == {
        ExifTags.Base.ImageDescription: "A duck",
        ExifTags.Base.Software: "Camera 1.0",
        ExifTags.Base.Artist: "Somebody",
        ExifTags.Base.Copyright: "Mine",
    }
    assert photo.dpi == (300, 300)


def parsed(exif: bytes) -> Image.Exif:
    block = Image.Exif()
    block.load(exif)
    return block


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_and_size_are_patched(make_exif: Callable[..., bytes], order: str, orientation: int) -> None:
    before = make_exif(orientation, order)
    after, notices = upright(b"Exif\0\0" + before, (30, 20))
    assert after is not None
    assert notices == ()
    block = parsed(after)
    assert block[ExifTags.Base.Orientation] == 1
    assert block[ExifTags.Base.Make] == "Camera"
    inner = block.get_ifd(ExifTags.IFD.Exif)
    assert (inner[0xA002], inner[0xA003]) == (20, 30)
    assert block.get_ifd(ExifTags.IFD.IFD1) == {}
    assert len(after) == len(before)
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert len(changed) <= 1 + 4 + 2 + 4  # orientation, width, height, link to the thumbnail


def test_maker_note_stays_where_it_is(make_exif: Callable[..., bytes]) -> None:
    before = make_exif(6)
    after, _ = upright(before, (20, 30))
    assert after is not None
    assert after.index(b"MAKER") == before.index(b"MAKER")


@pytest.mark.parametrize("length", [1, 7, 8, 9, 20, 60])
def test_damaged_exif_is_dropped_with_a_notice(make_exif: Callable[..., bytes], length: int) -> None:
    assert upright(make_exif(6)[:length], (20, 30)) == (None, ("the EXIF data are damaged and were left out",))


@pytest.mark.parametrize("empty", [None, b"", b"Exif\0\0"])
def test_no_exif(empty: bytes | None) -> None:
    assert upright(empty, (20, 30)) == (None, ())


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_can_be_taken_out(make_exif: Callable[..., bytes], order: str) -> None:
    before = make_exif(1, order)
    after = without_orientation(before)
    assert len(after) == len(before)
    assert after.index(b"MAKER") == before.index(b"MAKER")
    block = parsed(after)
    assert ExifTags.Base.Orientation not in block
    assert block[ExifTags.Base.Make] == "Camera"
    assert block.get_ifd(ExifTags.IFD.Exif)[0xA002] == 30
    assert without_orientation(after) == after


def test_first_directory(make_exif: Callable[..., bytes]) -> None:
    exif = make_exif(3, ">")
    found = first_directory(exif)
    assert found[271] == (2, 7, b"Camera\0")
    assert found[274] == (3, 1, b"\0\x03")
    assert set(found) == {271, 274, 34665}
    assert first_directory(b"") == {}


@pytest.mark.parametrize(
    "packet",
    [b'<r tiff:Orientation="%d"/>', b"<tiff:Orientation>%d</tiff:Orientation>", b"<r tiff:Orientation = '%d'/>"],
)
def test_xmp_orientation(packet: bytes) -> None:
    assert upright_xmp(packet % 6) == packet % 1
    assert upright_xmp(b"<r/>") == b"<r/>"
    assert upright_xmp(None) is None
