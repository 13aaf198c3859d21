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
