"""JPEG pieces: IPTC, and HDR gain maps carried from file to file."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, MpoImagePlugin

from pocketprior.core.photo import jpeg
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import GainMap

Bytes = NDArray[np.uint8]

ISO = b"urn:iso:std:iso:ts:21496:-1\0"
ADOBE = b"http://ns.adobe.com/xap/1.0/\0<x xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/' hdrgm:GainMapMax='2.5'/>"
APPLE = b"http://ns.adobe.com/xap/1.0/\0<x>urn:com:apple:photo:2020:aux:hdrgainmap</x>"
CONTAINER = (
    '<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0">'
    '<rdf:li><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>'
    '<rdf:li><Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="%d"/></rdf:li></x>'
)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(body) + 2) + body


def plain(pixels: Bytes, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def gain_map_file(marks: bytes = ADOBE) -> bytes:
    """A second image with its metadata: brighter to the right and below."""
    y, x = np.mgrid[:12, :20]
    data = plain((x * 8 + y * 5).astype(np.uint8))
    return data[:2] + segment(0xE1 if b"adobe" in marks else 0xE2, marks) + data[2:]


def ultra_hdr(
    rgb: Bytes,
    marks: bytes = ADOBE,
    *,
    primary_iso: bool = False,
    orientation: int = 1,
    further: tuple[bytes, ...] = (),
) -> bytes:
    """A photo with images behind it, as phones write it: MP index in APP2, XMP directory of items."""
    second = gain_map_file(marks)
    exif = Image.Exif()
    exif[274] = orientation
    xmp = (CONTAINER % len(second)).encode() if marks == ADOBE else None
    extra = segment(0xE2, ISO + b"\0\0\0\0") if primary_iso else b""
    first = plain(rgb, exif=exif, xmp=xmp, extra=extra, subsampling=0)
    images = [second, *further]
    at = 2 + struct.unpack(">H", first[4:6])[0] + 2  # behind JFIF

    def index(total: int, header: int) -> bytes:
        rows = struct.pack("<IIIHH", 0x030000, total, 0, 0, 0)
        offset = total - header
        for image in images:
            rows += struct.pack("<IIIHH", 0, len(image), offset, 0, 0)
            offset += len(image)
        body = b"MPF\0II*\0\x08\0\0\0" + struct.pack("<H", 3)
        body += struct.pack("<HHI4s", 0xB000, 7, 4, b"0100") + struct.pack("<HHII", 0xB001, 4, 1, len(images) + 1)
        body += struct.pack("<HHIII", 0xB002, 7, len(rows), 50, 0)
        return segment(0xE2, body + rows)

    total = len(first) + len(index(0, 0))
    return first[:at] + index(total, at + 8) + first[at:] + b"".join(images)


def images_of(path: Path) -> list[bytes]:
    """The images of an MPF file by Pillow's own reading of the index."""
    data = path.read_bytes()
    with MpoImagePlugin.MpoImageFile(io.BytesIO(data)) as image:
        header = data.index(b"MPF\0") + 4
        entries = image.mpinfo[0xB002]
    starts = [entry["DataOffset"] + header if entry["DataOffset"] else 0 for entry in entries]
    return [data[start : start + entry["Size"]] for start, entry in zip(starts, entries, strict=True)]


@pytest.mark.parametrize("marks", [ADOBE, APPLE, ISO + b"numbers"], ids=["adobe", "apple", "iso"])
def test_gain_map_is_carried_byte_for_byte(tmp_path: Path, rgb: Bytes, marks: bytes) -> None:
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    source.write_bytes(ultra_hdr(rgb, marks, primary_iso=marks.startswith(ISO)))
    photo = read(source)
    assert photo.notices == ()
    assert photo.gain_map is not None
    assert photo.gain_map.jpeg == gain_map_file(marks)
    assert write(photo.with_pixels(255 - photo.pixels), target) == ()
    first, second = images_of(target)
    assert second == gain_map_file(marks)
    assert target.read_bytes() == first + second
    with Image.open(io.BytesIO(first)) as image:
        assert np.abs(np.asarray(image).astype(int) - (255 - photo.pixels)).max() < 12
    assert (ISO in first) == marks.startswith(ISO)


def test_gain_map_survives_two_round_trips(tmp_path: Path, rgb: Bytes) -> None:
    (tmp_path / "0.jpg").write_bytes(ultra_hdr(rgb))
    for step in range(2):
        write(read(tmp_path / f"{step}.jpg"), tmp_path / f"{step + 1}.jpg")
    assert images_of(tmp_path / "2.jpg")[1] == gain_map_file()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_gain_map_turns_with_its_photo(tmp_path: Path, rgb: Bytes, orientation: int) -> None:
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    source.write_bytes(ultra_hdr(rgb, orientation=orientation))
    write(read(source), target)
    second = images_of(target)[1]
    with Image.open(io.BytesIO(gain_map_file())) as before, Image.open(io.BytesIO(second)) as after:
        expected = before.transpose(jpeg.TRANSPOSES[orientation])
        assert after.mode == before.mode
        assert np.abs(np.asarray(after).astype(int) - np.asarray(expected)).max() <= 4
    assert ADOBE in second
    xmp = read(target).xmp
    assert xmp is not None
    assert f'Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="{len(second)}"'.encode() in xmp


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif", ".heic"])
def test_losing_the_gain_map_is_told(tmp_path: Path, rgb: Bytes, suffix: str) -> None:
    (tmp_path / "in.jpg").write_bytes(ultra_hdr(rgb))
    notices = write(read(tmp_path / "in.jpg"), tmp_path / f"out{suffix}")
    assert any("HDR gain map" in notice and "write .jpg" in notice for notice in notices)


@pytest.mark.parametrize("cut", [1, 200])
def test_damaged_gain_map_is_told(tmp_path: Path, rgb: Bytes, cut: int) -> None:
    (tmp_path / "in.jpg").write_bytes(ultra_hdr(rgb)[:-cut])
    photo = read(tmp_path / "in.jpg")
    assert photo.gain_map is None
    assert "damaged" in photo.notices[0]


def test_announced_gain_map_that_is_not_there_is_told(tmp_path: Path, rgb: Bytes) -> None:
    (tmp_path / "in.jpg").write_bytes(plain(rgb, xmp=(CONTAINER % 1000).encode()))
    assert "HDR gain map could not be found" in read(tmp_path / "in.jpg").notices[0]


def test_other_images_behind_the_photo_are_told(tmp_path: Path, rgb: Bytes) -> None:
    (tmp_path / "in.jpg").write_bytes(ultra_hdr(rgb, further=(plain(rgb), plain(rgb))))
    photo = read(tmp_path / "in.jpg")
    assert photo.gain_map is not None
    assert photo.notices == ("the file holds 2 further images (stereo or series), which are not kept",)


def test_preview_behind_the_photo_is_no_loss(tmp_path: Path, rgb: Bytes) -> None:
    data = ultra_hdr(rgb, marks=ISO, further=())
    preview = data.replace(
        struct.pack("<II", 0, len(gain_map_file(ISO))), struct.pack("<II", 0x010002, len(gain_map_file(ISO)))
    )
    (tmp_path / "in.jpg").write_bytes(preview)
    photo = read(tmp_path / "in.jpg")
    assert photo.gain_map is None
    assert photo.notices == ()


def test_iptc(tmp_path: Path, rgb: Bytes) -> None:
    records = b"\x1c\x02\x78\x00\x07caption"
    (tmp_path / "in.jpg").write_bytes(plain(rgb, extra=jpeg.extra_segments(records, None)))
    for source, target in (("in.jpg", "a.jpg"), ("a.jpg", "b.tif"), ("b.tif", "c.jpg")):
        photo = read(tmp_path / source)
        assert photo.iptc == records
        assert write(photo, tmp_path / target) == ()
    assert read(tmp_path / "c.jpg").iptc == records
    assert any("IPTC" in notice for notice in write(photo, tmp_path / "d.webp"))


@pytest.mark.parametrize(
    ("xmp", "word", "left"),
    [
        (b'<x a="b" xmpNote:HasExtendedXMP="ABC"/>', "64 KiB", b'<x a="b"/>'),
        (b'<x GCamera:MotionPhoto="1"/>', "video", b'<x GCamera:MotionPhoto="0"/>'),
    ],
)
def test_what_xmp_announces_elsewhere_is_told(tmp_path: Path, rgb: Bytes, xmp: bytes, word: str, left: bytes) -> None:
    (tmp_path / "in.jpg").write_bytes(plain(rgb, xmp=xmp))
    photo = read(tmp_path / "in.jpg")
    assert word in photo.notices[0]
    assert photo.xmp == left


def test_length_is_patched_only_in_the_gain_map_item() -> None:
    xmp = (CONTAINER % 7).encode() + b'<Item Item:Semantic="MotionPhoto" Item:Length="99"/>'
    patched = jpeg.with_gain_map_length(xmp, GainMap(bytes(1234), b""))
    assert patched == xmp.replace(b'"7"', b'"1234"')
    assert jpeg.with_gain_map_length(None, GainMap(b"", b"")) is None


def test_reading_and_writing_do_not_share_a_bug(tmp_path: Path, rgb: Bytes) -> None:
    """A viewer that knows nothing of us sees the photo, its EXIF and a second frame."""
    (tmp_path / "in.jpg").write_bytes(ultra_hdr(rgb, APPLE))
    write(read(tmp_path / "in.jpg"), tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.format == "MPO"
        assert image.n_frames == 2
        assert image.getexif()[274] == 1
        image.seek(1)
        assert image.size == (20, 12)


def test_index_without_entries_is_told(tmp_path: Path, rgb: Bytes) -> None:
    data = ultra_hdr(rgb, ISO + b"numbers")
    (tmp_path / "in.jpg").write_bytes(data.replace(struct.pack("<HH", 0xB002, 7), struct.pack("<HH", 0xB003, 7)))
    assert "damaged" in read(tmp_path / "in.jpg").notices[0]


def test_fill_bytes_between_segments(tmp_path: Path, rgb: Bytes) -> None:
    """Any number of 0xFF may stand before a marker (T.81, B.1.1.2)."""
    kept = GainMap(gain_map_file(), b"")
    first = plain(rgb)
    (tmp_path / "a.jpg").write_bytes(jpeg.attach(first[:20] + b"\xff\xff" + first[20:], kept))
    assert read(tmp_path / "a.jpg").gain_map == kept
