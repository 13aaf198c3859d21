"""EXIF is patched in place: orientation, size and thumbnail change, every other byte stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import ExifTags, Image

from pocketprior.core.photo.metadata import first_directory, upright, upright_xmp, without_orientation


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
