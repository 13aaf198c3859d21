"""Photo files, end to end: what goes in comes out, in every format."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from pocketprior.core.errors import PhotoReadError, PhotoUnsupportedError, PhotoWriteError, UsageError
from pocketprior.core.photo.encode import FILE_FORMATS
from pocketprior.core.photo.io import SUFFIXES, format_of, is_photo, read, write
from pocketprior.core.photo.photo import Photo

Bytes = NDArray[np.uint8]

LOSSLESS = (".png", ".tif")
LOSSY = (".jpg", ".webp", ".avif", ".heic")
LARGEST_ERROR = {".jpg": 10, ".webp": 24, ".avif": 14, ".heic": 10}  # of 255, on the image below, WebP halves chroma
EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.jpg"))


def sample(height: int = 30, width: int = 44) -> Bytes:
    """(H, W, 3): smooth, coloured, without symmetry."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([x * 200 + 20, y * 220, 255 - (x + y) * 90], -1).astype(np.uint8)


def difference(a: NDArray[np.generic], b: NDArray[np.generic]) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(30, 44), (1, 1), (1, 50), (50, 1)])
def test_lossless_formats_keep_every_bit(
    tmp_path: Path, suffix: str, dtype: type[np.uint8] | type[np.uint16], grey: bool, size: tuple[int, int]
) -> None:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top, (*size, 3), dtype=dtype, endpoint=True)
    pixels = np.repeat(pixels[..., :1], 3, 2) if grey else pixels
    assert write(Photo(pixels, grey=grey), tmp_path / f"a{suffix}") == ()
    photo = read(tmp_path / f"a{suffix}")
    assert photo.pixels.dtype == dtype
    assert np.array_equal(photo.pixels, pixels)
    assert photo.grey == grey
    assert photo.notices == ()


@pytest.mark.parametrize("suffix", LOSSY)
@pytest.mark.parametrize("grey", [False, True])
def test_lossy_formats_stay_close(tmp_path: Path, suffix: str, grey: bool) -> None:
    pixels = np.repeat(sample()[..., :1], 3, 2) if grey else sample()
    write(Photo(pixels, grey=grey), tmp_path / f"a{suffix}")
    photo = read(tmp_path / f"a{suffix}")
    assert difference(photo.pixels, pixels) <= LARGEST_ERROR[suffix]
    assert photo.grey == (grey and suffix != ".webp")
    assert difference(photo.pixels.max(2), photo.pixels.min(2)) <= 1 or not grey


@pytest.mark.parametrize("suffix", LOSSY)
def test_one_pixel(tmp_path: Path, suffix: str) -> None:
    write(Photo(sample(1, 1)), tmp_path / f"a{suffix}")
    assert difference(read(tmp_path / f"a{suffix}").pixels, sample(1, 1)) <= 6


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_is_carried_unchanged(tmp_path: Path, suffix: str) -> None:
    alpha = np.tile(np.arange(44, dtype=np.uint8) * 5, (30, 1))
    write(Photo(sample(), alpha=alpha), tmp_path / f"a{suffix}")
    photo = read(tmp_path / f"a{suffix}")
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, alpha)


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_alpha_that_the_format_codes_with_loss(tmp_path: Path, suffix: str) -> None:
    alpha = np.tile(np.arange(44, dtype=np.uint8) * 5, (30, 1))
    write(Photo(sample(), alpha=alpha), tmp_path / f"a{suffix}")
    photo = read(tmp_path / f"a{suffix}")
    assert photo.alpha is not None
    assert difference(photo.alpha, alpha) <= 3


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif", ".heic"])
def test_hidden_colours_do_not_bleed(tmp_path: Path, suffix: str) -> None:
    """A white shape on black nothing: what is restored has no black in it."""
    alpha = np.zeros((32, 32), np.uint8)
    alpha[8:24, 8:24] = 255
    rgba = np.dstack([alpha, alpha, alpha, alpha])
    options = {"exact": True, "lossless": True} if suffix == ".webp" else {}
    if suffix == ".heic":
        write(Photo(rgba[..., :3].copy(), alpha=alpha), tmp_path / "a.heic")
    else:
        Image.fromarray(rgba).save(tmp_path / f"a{suffix}", **options)
    assert read(tmp_path / f"a{suffix}").pixels.min() > 240


@pytest.mark.parametrize(
    ("suffix", "deep"),
    [
        (".jpg", False),
        (".png", False),
        (".png", True),
        (".tif", False),
        (".tif", True),
        (".webp", False),
        (".avif", False),
    ],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_exactly_once(tmp_path: Path, suffix: str, deep: bool, orientation: int) -> None:
    source, target, again = (tmp_path / f"{name}{suffix}" for name in ("in", "out", "again"))
    tagged = Image.fromarray(sample())
    exif = tagged.getexif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = orientation, "Camera"
    expected = np.asarray(ImageOps.exif_transpose(tagged))
    if deep:
        write(Photo(sample().astype(np.uint16) * 257, exif=exif.tobytes()[6:]), source)
    else:
        tagged.save(source, exif=exif, quality=100, **({"subsampling": 0} if suffix == ".jpg" else {}))

    photo = read(source)
    assert photo.pixels.flags.c_contiguous
    assert photo.pixels.shape == expected.shape
    assert difference(photo.pixels // (257 if deep else 1), expected) <= 24
    write(photo, target)
    write(read(target), again)
    for path in (target, again):
        with Image.open(path) as image:
            tags = image.getexif()
            assert tags.get(ExifTags.Base.Orientation, 1) == 1
            assert tags[ExifTags.Base.Make] == "Camera"
            assert image.size == (expected.shape[1], expected.shape[0])
            assert difference(np.asarray(ImageOps.exif_transpose(image)), expected) <= 36


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation_in_xmp_alone(tmp_path: Path, suffix: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    write(Photo(sample(), xmp=xmp), tmp_path / f"a{suffix}")
    photo = read(tmp_path / f"a{suffix}")
    assert photo.size == (44, 30)
    assert photo.xmp is not None
    assert b'tiff:Orientation="6"' not in photo.xmp


@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".webp", ".avif", ".heic"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".webp", ".avif", ".heic"])
def test_metadata_from_every_format_to_every_other(tmp_path: Path, source: str, target: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Model 1"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:01:02 03:04:05"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">rating</x:xmpmeta>'
    write(Photo(sample(), exif=exif.tobytes()[6:], xmp=xmp, dpi=(300, 300)), tmp_path / f"in{source}")
    write(read(tmp_path / f"in{source}"), tmp_path / f"out{target}")
    photo = read(tmp_path / f"out{target}")
    kept = Image.Exif()
    kept.load(photo.exif or b"")
    assert kept[ExifTags.Base.Model] == "Model 1"
    assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2026:01:02 03:04:05"
    assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert photo.xmp == xmp
    if {source, target} <= {".jpg", ".png", ".tif"}:
        assert photo.dpi is not None
        assert [round(number) for number in photo.dpi] == [300, 300]


def test_jpeg_comment_and_png_text(tmp_path: Path) -> None:
    Image.fromarray(sample()).save(tmp_path / "a.jpg", comment="Grüße")
    photo = read(tmp_path / "a.jpg")
    assert photo.text == (("Comment", "Grüße"),)
    write(photo, tmp_path / "b.png")
    assert read(tmp_path / "b.png").text == photo.text
    write(read(tmp_path / "b.png"), tmp_path / "c.jpg")
    assert read(tmp_path / "c.jpg").text == photo.text


def test_quality(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for suffix in LOSSY:
        write(Photo(noise), tmp_path / f"low{suffix}", quality=20)
        write(Photo(noise), tmp_path / f"usual{suffix}")
        assert 2 * (tmp_path / f"low{suffix}").stat().st_size < (tmp_path / f"usual{suffix}").stat().st_size


def test_jpeg_has_full_chroma(tmp_path: Path) -> None:
    write(Photo(sample()), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert [(h, v) for _, h, v, _ in image.layer] == [(1, 1)] * 3


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_quality_out_of_range(tmp_path: Path, quality: int) -> None:
    with pytest.raises(UsageError, match="expected a quality from 1 to 100"):
        write(Photo(sample()), tmp_path / "a.jpg", quality=quality)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_16_bits_are_rounded_with_a_notice(tmp_path: Path, suffix: str) -> None:
    deep = np.full((16, 16, 3), 128 * 257 + 128, np.uint16)
    notices = write(Photo(deep), tmp_path / f"a{suffix}", quality=100)
    assert notices == (f"16-bit samples were rounded to 8 bits, as {suffix} has no more",)
    assert difference(read(tmp_path / f"a{suffix}").pixels, np.full((16, 16, 3), 128)) <= 1


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    write(Photo(sample()), tmp_path / "a.png")
    os.rename(tmp_path / "a.png", tmp_path / "a.jpg")
    photo = read(tmp_path / "a.jpg")
    assert photo.format == "PNG"
    assert np.array_equal(photo.pixels, sample())


def test_source_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Photo(sample()), tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert read("a.png").source == tmp_path / "a.png"


def test_suffixes() -> None:
    assert list(SUFFIXES) == sorted(SUFFIXES)
    assert {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".avif", ".heic"} <= set(SUFFIXES)
    assert tuple(FILE_FORMATS) == ("AVIF", "HEIF", "JPEG", "PNG", "TIFF", "WEBP")


@pytest.mark.parametrize("name", ["a.jpg", "A.JPEG", "b/c.Tif", "x.y.heic"])
def test_photos_of_a_folder(name: str) -> None:
    assert is_photo(name)


@pytest.mark.parametrize("name", ["a.txt", "jpg", ".jpg", "._a.jpg", ".pocketprior-1.png", "a.jpg.part", "a"])
def test_other_files_of_a_folder(name: str) -> None:
    assert not is_photo(Path("folder") / name)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_real_photos(tmp_path: Path, path: Path) -> None:
    photo = read(path)
    with Image.open(path) as image:
        assert np.array_equal(photo.pixels, np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    write(photo, tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png").pixels, photo.pixels)


def test_transparent_photo_has_no_place_in_jpeg(tmp_path: Path) -> None:
    alpha = np.full((30, 44), 255, np.uint8)
    write(Photo(sample(), alpha=alpha), tmp_path / "opaque.jpg")
    alpha[3, 4] = 254
    with pytest.raises(PhotoWriteError, match=r"transparent.*write \.png"):
        write(Photo(sample(), alpha=alpha), tmp_path / "a.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["opaque.jpg"]


def ftyp(*brands: bytes) -> bytes:
    return struct.pack(">I4s4sI", 16 + 4 * (len(brands) - 1), b"ftyp", brands[0], 0) + b"".join(brands[1:])


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WEBP"),
        (ftyp(b"avif", b"mif1"), "AVIF"),
        (ftyp(b"mif1", b"avif"), "AVIF"),
        (ftyp(b"avis", b"msf1"), "AVIF"),
        (ftyp(b"heic", b"mif1"), "HEIF"),
        (ftyp(b"mif1", b"heic"), "HEIF"),
    ],
)
def test_known(head: bytes, format: str) -> None:
    assert format_of(io.BytesIO(head)) == format


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"GIF89a", "GIF"),
        (b"BM\0\0", "BMP"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"8BPS", "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b"II*\0\x10\0\0\0CR\x02\0", "camera raw"),
        (b"FUJIFILMCCD-RAW", "camera raw"),
        (ftyp(b"crx "), "camera raw"),
        (ftyp(b"msf1", b"hevc"), "frames"),
    ],
)
def test_known_but_not_read(head: bytes, word: str) -> None:
    with pytest.raises(PhotoUnsupportedError, match=word):
        format_of(io.BytesIO(head))


@pytest.mark.parametrize(
    "head", [b"Hello, world", b"\0" * 20, b"\xff\xd8", ftyp(b"isom", b"mp42"), b"RIFF\0\0\0\0WAVE", b"x"]
)
def test_unknown(head: bytes) -> None:
    with pytest.raises(PhotoReadError, match="not an image file: it begins with"):
        format_of(io.BytesIO(head))


def test_empty() -> None:
    with pytest.raises(PhotoReadError, match="empty"):
        format_of(io.BytesIO())
