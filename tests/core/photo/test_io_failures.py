"""Bad input and bad luck: a clear error of the right kind, and never half a file."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pocketprior.core.errors import (
    PhotoError,
    PhotoReadError,
    PhotoTooLargeError,
    PhotoUnsupportedError,
    PhotoWriteError,
    UsageError,
)
from pocketprior.core.photo import io as image
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo

Bytes = NDArray[np.uint8]
SUFFIXES = (".jpg", ".png", ".tif", ".webp", ".avif", ".heic")
ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX limits and links")


def sample(height: int = 20, width: int = 30) -> Bytes:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 12, x * y % 256], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small good file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    for suffix in SUFFIXES:
        write(Photo(sample()), folder / f"8{suffix}")
    for suffix in (".png", ".tif"):
        write(Photo(sample().astype(np.uint16) * 250), folder / f"16{suffix}")
    Image.fromarray(sample()).save(folder / "progressive.jpg", progressive=True)
    Image.fromarray(sample()).save(folder / "raw.tif")
    Image.fromarray(sample()).save(folder / "lzw.tif", compression="tiff_lzw")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# Reading


def nothing(path: Path) -> None:
    """The file does not exist."""


def a_folder(path: Path) -> None:
    path.mkdir()


def animation(format: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
        frames[0].save(path, format, save_all=True, append_images=frames[1:])

    return make


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def bomb(path: Path) -> None:
    """A PNG of 300 bytes that says it is 60000 x 60000."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(200_000))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def profile_bomb(path: Path) -> None:
    """A PNG whose profile unpacks to a thousand times its size."""
    Image.new("RGB", (8, 8)).save(path, "PNG", icc_profile=bytes(5_000_000))


@pytest.mark.parametrize(
    ("name", "make", "error", "words"),
    [
        ("missing.jpg", nothing, PhotoReadError, "no such file"),
        ("folder.jpg", a_folder, PhotoReadError, "not a regular file"),
        ("empty.jpg", content(b""), PhotoReadError, "empty"),
        ("text.jpg", content(b"Dear Sir or Madam"), PhotoReadError, "not an image"),
        ("zeros.png", content(bytes(5000)), PhotoReadError, "not an image"),
        ("magic.jpg", content(b"\xff\xd8\xff"), PhotoReadError, "damaged"),
        ("magic.png", content(b"\x89PNG\r\n\x1a\n"), PhotoReadError, "damaged"),
        ("magic.tif", content(b"II*\0"), PhotoReadError, "damaged"),
        ("magic.webp", content(b"RIFF\0\0\0\0WEBP"), PhotoReadError, "damaged"),
        ("magic.avif", content(b"\0\0\0\x10ftypavif\0\0\0\0"), PhotoReadError, "damaged"),
        ("magic.heic", content(b"\0\0\0\x10ftypheic\0\0\0\0"), PhotoReadError, "damaged"),
        ("bomb.png", bomb, PhotoTooLargeError, "3600.0 megapixels.*max_pixels"),
        ("profile.png", profile_bomb, PhotoReadError, "damaged"),
        ("a.gif", animation("GIF"), PhotoUnsupportedError, "GIF"),
        ("a.webp", animation("WEBP"), PhotoUnsupportedError, "3 frames"),
        ("a.png", animation("PNG"), PhotoUnsupportedError, "3 frames"),
        ("a.avif", animation("AVIF"), PhotoUnsupportedError, "3 frames"),
        ("a.tif", animation("TIFF"), PhotoUnsupportedError, "3 pages"),
    ],
)
def test_what_cannot_be_read(
    tmp_path: Path, name: str, make: Callable[[Path], None], error: type[PhotoError], words: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(error, match=words) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert caught.value.exit_code == 1


def test_pixel_limit(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        write(Photo(sample()), tmp_path / f"a{suffix}")
        assert read(tmp_path / f"a{suffix}", max_pixels=600).size == (20, 30)
        with pytest.raises(PhotoTooLargeError, match="max-pixels"):
            read(tmp_path / f"a{suffix}", max_pixels=599)


def test_pixel_limit_must_be_sensible(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        read(tmp_path / "a.jpg", max_pixels=0)


@pytest.mark.parametrize("name", ["8.jpg", "8.png", "8.tif", "8.webp"])
def test_limit_is_ours_and_not_that_of_pillow(
    tmp_path: Path, files: dict[str, bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    (tmp_path / name).write_bytes(files[name])
    assert read(tmp_path / name).size == (20, 30)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(
    "name",
    [
        "8.jpg",
        "8.png",
        "8.tif",
        "8.webp",
        "8.avif",
        "8.heic",
        "16.png",
        "16.tif",
        "progressive.jpg",
        "raw.tif",
        "lzw.tif",
    ],
)
def test_truncated_files_are_never_filled_up(
    tmp_path: Path, files: dict[str, bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut anywhere: an error, or every pixel right (when only the end marker is gone), though others told Pillow to."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path, data = tmp_path / name, files[name]
    path.write_bytes(data)
    whole = read(path).pixels
    for length in [*range(0, len(data), 1 + len(data) // 30), *range(len(data) - 20, len(data), 5)]:
        path.write_bytes(data[:length])
        try:
            pixels = read(path).pixels
        except PhotoReadError:
            continue
        assert np.array_equal(pixels, whole)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("name", ["8.jpg", "8.png", "8.tif", "8.webp", "8.avif", "8.heic", "16.png", "raw.tif"])
def test_scrambled_files_give_our_errors_only(tmp_path: Path, files: dict[str, bytes], name: str) -> None:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(30):
        data = bytearray(files[name])
        for at in random.integers(0, min(len(data), 400), 4):
            data[at] = random.integers(256)
        (tmp_path / name).write_bytes(data)
        try:
            photo = read(tmp_path / name, max_pixels=10_000)
        except PhotoError:
            continue
        assert photo.pixels.size <= 30_000


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated, because the superuser may read everything."""

    def refuse(*_: object) -> IO[bytes]:
        raise PermissionError(errno.EACCES, "no")

    write(Photo(sample()), tmp_path / "a.png")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PhotoReadError, match="permission denied"):
        read(tmp_path / "a.png")


def test_not_enough_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Photo:
        raise MemoryError

    write(Photo(sample()), tmp_path / "a.png")
    monkeypatch.setattr(image, "decode", fail)
    with pytest.raises(PhotoTooLargeError, match="too large to decode"):
        read(tmp_path / "a.png")


# Writing


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.gif", "a.jpg.part", ".png"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(PhotoWriteError, match=r"\.avif, .*\.webp"):
        write(Photo(sample()), tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_existing_file_is_kept(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_text("precious")
    with pytest.raises(PhotoWriteError, match="exists already"):
        write(Photo(sample()), tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").read_text() == "precious"
    write(Photo(sample()), tmp_path / f"a{suffix}", overwrite=True)
    assert read(tmp_path / f"a{suffix}").size == (20, 30)
    assert os.listdir(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize("way", ["same", "relative", "symlink", "hard link", "read through a link"])
@ON_POSIX
def test_source_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    source, link = tmp_path / "a.png", tmp_path / "b.png"
    write(Photo(sample()), source)
    before = source.read_bytes()
    if way in ("symlink", "read through a link"):
        link.symlink_to(source)
    if way == "hard link":
        os.link(source, link)
    monkeypatch.chdir(tmp_path)
    target = {"same": source, "relative": Path("./a.png"), "read through a link": source}.get(way, link)
    photo = read(link if way == "read through a link" else source)
    with pytest.raises(PhotoWriteError, match="never overwritten"):
        write(photo.with_pixels(255 - photo.pixels), target, overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("none/a.png", "folder does not exist"),
        ("file/a.png", "is a file"),
        ("folder.png", "a folder"),
        ("x" * 300 + ".png", "too long"),
    ],
)
def test_places_where_nothing_can_be_written(tmp_path: Path, place: str, words: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(PhotoWriteError, match=words):
        write(Photo(sample()), tmp_path / place, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


@ON_POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PhotoWriteError, match="permission denied"):
        write(Photo(sample()), tmp_path / "a.png")
    tmp_path.chmod(0o700)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PhotoWriteError, match=r"cannot be written: .*; .*folder"):
        write(Photo(sample()), tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


@ON_POSIX
def test_full_disk(tmp_path: Path) -> None:
    """The system lets no file grow past 3 kB; what was there before stays."""
    program = f"""
import resource
import numpy as np
from pocketprior.core.errors import PhotoWriteError
from pocketprior.core.photo.io import write
from pocketprior.core.photo.photo import Photo
noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
for suffix in {SUFFIXES}:
    for name in ("new", "old"):
        try:
            write(Photo(noise), {str(tmp_path)!r} + f"/{{name}}{{suffix}}", overwrite=True)
        except PhotoWriteError as error:
            print(error)
"""
    old = [tmp_path / f"old{suffix}" for suffix in SUFFIXES]
    for path in old:
        path.write_text("old")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("choose another folder") == 2 * len(SUFFIXES)
    assert sorted(tmp_path.iterdir()) == sorted(old)
    assert all(path.read_text() == "old" for path in old)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_interrupted_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def interrupted(_: Photo, file: IO[bytes]) -> None:
        file.write(b"half of a PNG")
        raise failure

    monkeypatch.setitem(image._WRITERS, "PNG", interrupted)
    with pytest.raises(failure):
        write(Photo(sample()), tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16384), (".jpg", 65501)])
def test_sides_too_long_for_the_format(tmp_path: Path, suffix: str, side: int) -> None:
    with pytest.raises(PhotoWriteError, match=r"at most \d+ a side; write \.png or \.tif"):
        write(Photo(np.zeros((1, side, 3), np.uint8)), tmp_path / f"a{suffix}")
    assert os.listdir(tmp_path) == []


def test_encoder_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError("encoder error -2")

    monkeypatch.setitem(image._ENCODERS, "WEBP", refuse)
    with pytest.raises(PhotoWriteError, match=r"encoder error -2.*write \.png"):
        write(Photo(sample()), tmp_path / "a.webp")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("field", "name"), [("exif", "EXIF"), ("xmp", "XMP"), ("iptc", "IPTC")])
def test_metadata_too_long_for_jpeg(tmp_path: Path, field: str, name: str) -> None:
    long = b"II*\0\x08\0\0\0\0\0\0\0\0\0" + bytes(70_000)
    photo = Photo(sample(), **{field: long})
    assert name in write(photo, tmp_path / "a.jpg")[0]
    assert write(photo, tmp_path / "a.tif") == ()
    assert getattr(read(tmp_path / "a.tif"), field) is not None or field == "exif"


# Memory


@ON_POSIX
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory that Linux reports")
@pytest.mark.parametrize(("suffix", "dtype"), [(".jpg", "uint8"), (".png", "uint16")])
def test_memory_is_bounded(tmp_path: Path, suffix: str, dtype: str) -> None:
    """Pillow's image, 4 bytes a pixel, beside ours to read, and to write JPEG; nothing beside ours to write PNG."""
    program = f"""
import sys
import numpy as np
from pocketprior.core.photo.io import read, write
from pocketprior.core.photo.photo import Photo

# Not ru_maxrss: a child starts with the peak of the process that it was forked from.
def peak(): return 1024 * int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))

path = {str(tmp_path)!r} + "/a{suffix}"
small = np.zeros((64, 64, 3), np.{dtype})
write(Photo(small), {str(tmp_path)!r} + "/b{suffix}", overwrite=True)
read({str(tmp_path)!r} + "/b{suffix}")
start = peak()
if sys.argv[1] == "write":
    write(Photo(np.zeros((2000, 4000, 3), np.{dtype})), path)
else:
    read(path)
print((peak() - start) / 8e6)
"""
    each = {"uint8": 3, "uint16": 6}[dtype]
    limits = {"write": each + 4 if suffix == ".jpg" else each, "read": each + 4}
    for step, limit in limits.items():
        done = subprocess.run([sys.executable, "-c", program, step], capture_output=True, text=True, check=True)
        assert float(done.stdout) < limit + 2  # 16 MB for the file, its codec and their buffers
