"""Every kind of sample a file can hold: a right answer, or a clear error."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.typing import NDArray
from PIL import Image

from pocketprior.core.errors import PhotoUnsupportedError
from pocketprior.core.photo import photo as module
from pocketprior.core.photo.io import read
from pocketprior.core.photo.photo import TRANSPOSES, bands, fill_hidden, rescaled, swaps_sides, unturned, with_depth

Bytes = NDArray[np.uint8]
Deep = NDArray[np.uint16]


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    samples: NDArray[np.generic], colour_type: int, *extra: bytes, bits: int = 16, interlaced: bool = False
) -> bytes:
    """A PNG by the book, for what Pillow and OpenCV do not write. samples: (H, W, C); unfiltered."""
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = starts if interlaced else [(0, 0, 1, 1)]
    big = samples.astype(">u2") if bits == 16 else samples
    rows = [b"\0" + row.tobytes() for y, x, dy, dx in passes for row in big[y::dy, x::dx] if row.size]
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png(tmp_path: Path, deep: Deep, channels: int) -> None:
    samples = np.concatenate([deep, deep[..., :1] // 2 + 1], 2)[..., :channels]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    cv2.imwrite(str(tmp_path / "a.png"), samples[..., order])
    photo = read(tmp_path / "a.png")
    assert photo.pixels.dtype == np.uint16
    assert np.array_equal(photo.pixels, np.broadcast_to(samples[..., : min(channels, 3)], deep.shape))
    assert photo.grey == (channels == 1)
    assert photo.alpha is None if channels < 4 else np.array_equal(photo.alpha, samples[..., 3])


@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_png_grey_alpha(tmp_path: Path, deep: Deep, interlaced: bool) -> None:
    samples = deep[..., :2] + 1
    (tmp_path / "a.png").write_bytes(png(samples, 4, interlaced=interlaced))
    photo = read(tmp_path / "a.png")
    assert photo.grey
    assert np.array_equal(photo.pixels[..., 0], samples[..., 0])
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, samples[..., 1])


@pytest.mark.parametrize(("channels", "colour_type"), [(3, 2), (4, 6)])
def test_16_bit_png_interlaced(tmp_path: Path, deep: Deep, channels: int, colour_type: int) -> None:
    samples = np.concatenate([deep, deep[..., :1] + 1], 2)[..., :channels]
    (tmp_path / "a.png").write_bytes(png(samples, colour_type, interlaced=True))
    assert np.array_equal(read(tmp_path / "a.png").pixels, deep)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("predictor", [None, 2])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_tiff(
    tmp_path: Path, deep: Deep, byteorder: str, compression: str | None, predictor: int | None, channels: int
) -> None:
    samples = np.concatenate([deep, deep[..., :1] // 2 + 1], 2)[..., :channels]
    tifffile.imwrite(
        tmp_path / "a.tif",
        samples if channels > 1 else samples[..., 0],
        photometric="rgb" if channels > 1 else "minisblack",
        extrasamples=["unassalpha"] if channels == 4 else None,
        byteorder=byteorder,
        compression=compression,
        predictor=predictor if compression else None,
        rowsperstrip=5,
    )
    photo = read(tmp_path / "a.tif")
    assert photo.pixels.dtype == np.uint16
    assert np.array_equal(photo.pixels, np.broadcast_to(samples[..., : min(channels, 3)], deep.shape))
    assert photo.alpha is None if channels < 4 else np.array_equal(photo.alpha, samples[..., 3])


@pytest.mark.parametrize("flags", [1, 5, 8])
def test_16_bit_tiff_of_another_library(tmp_path: Path, deep: Deep, flags: int) -> None:
    """No compression, LZW, Deflate by OpenCV's libtiff."""
    cv2.imwrite(str(tmp_path / "a.tif"), deep[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, flags])
    assert np.array_equal(read(tmp_path / "a.tif").pixels, deep)


def test_bigtiff_and_tiles(tmp_path: Path, deep: Deep) -> None:
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", bigtiff=True, tile=(16, 16))
    assert np.array_equal(read(tmp_path / "a.tif").pixels, deep)


def test_16_bit_tiff_with_premultiplied_alpha(tmp_path: Path, deep: Deep) -> None:
    alpha = (np.arange(24, dtype=np.uint16)[:, np.newaxis] * 2500 + np.ones(40, np.uint16)).astype(np.uint16)
    multiplied = np.floor(deep.astype(float) * alpha[..., np.newaxis] / 65535 + 0.5).astype(np.uint16)
    samples = np.concatenate([multiplied, alpha[..., np.newaxis]], 2)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    photo = read(tmp_path / "a.tif")
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, alpha)
    error = np.abs(photo.pixels.astype(float) - deep) * alpha[..., np.newaxis] / 65535
    assert error.max() <= 1  # what multiplying rounded away, seen through the alpha


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_where_white_is_zero(tmp_path: Path, dtype: type[np.uint8] | type[np.uint16]) -> None:
    stored = (np.arange(12, dtype=dtype) * 20).reshape(3, 4)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    assert np.array_equal(read(tmp_path / "a.tif").pixels[..., 0], np.iinfo(dtype).max - stored)


def test_12_bit_tiff(tmp_path: Path) -> None:
    """Two samples in three bytes; white must come out white."""
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x01])  # 0x000, 0xFFF, 0x800, 0x001
    entries = [(256, 2), (257, 2), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 2), (279, 6)]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)
    assert len(head) == 122
    (tmp_path / "a.tif").write_bytes(head + packed)
    expected = [[0, 65535], [round(0x800 * 65535 / 4095), 16]]
    assert read(tmp_path / "a.tif").pixels[..., 0].tolist() == expected


def test_bilevel(tmp_path: Path) -> None:
    bits = np.array([[0, 1, 0], [1, 1, 0]], bool)
    photo = read(saved(tmp_path / "a.png", Image.fromarray(bits)))
    assert photo.grey
    assert np.array_equal(photo.pixels[..., 1], bits * 255)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_grey_levels(tmp_path: Path, bits: int) -> None:
    packed = np.array([[[0b00011011]]], np.uint8)
    (tmp_path / "a.png").write_bytes(png(packed, 0, bits=bits).replace(*few_levels_header(bits)))
    expected = {2: [0, 85, 170, 255], 4: [17, 187]}[bits]
    assert read(tmp_path / "a.png").pixels[0, :, 0].tolist() == expected


def few_levels_header(bits: int) -> tuple[bytes, bytes]:
    """Replacement that makes the one byte per row mean 8 / bits pixels."""
    old = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, bits, 0, 0, 0, 0))
    return old, chunk(b"IHDR", struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0))


def test_transparent_level_among_few(tmp_path: Path) -> None:
    data = png(np.array([[[0b00011011]]], np.uint8), 0, chunk(b"tRNS", b"\0\x02"), bits=2)
    (tmp_path / "a.png").write_bytes(data.replace(*few_levels_header(2)))
    photo = read(tmp_path / "a.png")
    assert photo.alpha is not None
    assert photo.alpha[0].tolist() == [255, 255, 0, 255]


def test_palette(tmp_path: Path, rgb: Bytes) -> None:
    indexed = Image.fromarray(rgb).quantize(16)
    photo = read(saved(tmp_path / "a.png", indexed))
    assert np.array_equal(photo.pixels, np.asarray(indexed.convert("RGB")))
    assert photo.alpha is None


@pytest.mark.parametrize("transparency", [3, bytes([255, 128, 0, 64])])
def test_palette_with_transparency(tmp_path: Path, rgb: Bytes, transparency: int | bytes) -> None:
    indexed = Image.fromarray(rgb).quantize(4)
    path = saved(tmp_path / "a.png", indexed, transparency=transparency)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGBA"))
    photo = read(path)
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, expected[..., 3])
    assert np.array_equal(photo.pixels[photo.alpha > 0], expected[..., :3][photo.alpha > 0])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_transparent_colour(tmp_path: Path, rgb: Bytes, mode: str) -> None:
    image = Image.fromarray(rgb).convert(mode)
    key = image.getpixel((5, 7))
    photo = read(saved(tmp_path / "a.png", image, transparency=key))
    samples = np.asarray(image).reshape(24, 40, -1)
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha == 0, (samples == key).all(2))
    assert photo.alpha.max() == 255


def test_transparent_colour_with_16_bits(tmp_path: Path, deep: Deep) -> None:
    """Only the exact colour is transparent, not those with the same high bytes."""
    key = deep[3, 4]
    near = deep.copy()
    near[3, 5] = key ^ 1
    (tmp_path / "a.png").write_bytes(png(near, 2, chunk(b"tRNS", key.astype(">u2").tobytes())))
    photo = read(tmp_path / "a.png")
    assert photo.alpha is not None
    assert photo.alpha[3, 4] == 0
    assert photo.alpha[3, 5] == 65535


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_and_what_lies_under_it(tmp_path: Path, rgb: Bytes, mode: str) -> None:
    alpha = np.full((24, 40), 255, np.uint8)
    alpha[:, 30:], alpha[:, 29] = 0, 128
    image = Image.fromarray(rgb).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    colours = np.asarray(image.convert("RGBA"))[..., :3]
    photo = read(saved(tmp_path / "a.png", image))
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, alpha)
    assert np.array_equal(photo.pixels[:, :30], colours[:, :30])
    assert (photo.pixels[:, 30:] == colours[:, 29:30]).all()
    assert photo.grey == (mode == "LA")


@pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw"])
def test_ycbcr_tiff(tmp_path: Path, compression: str) -> None:
    flat = np.full((16, 16, 3), [200, 100, 50], np.uint8)
    path = saved(tmp_path / "a.tif", Image.fromarray(flat).convert("YCbCr"), compression=compression)
    assert np.abs(read(path).pixels.astype(int) - flat).max() <= 3


def test_8_bit_tiff_with_separate_planes(tmp_path: Path, rgb: Bytes) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(rgb, 2, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read(tmp_path / "a.tif").pixels, rgb)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_tiff_with_separate_planes(tmp_path: Path, deep: Deep, compression: str | None) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.moveaxis(deep, 2, 0), photometric="rgb", planarconfig="separate", compression=compression
    )
    with pytest.raises(PhotoUnsupportedError, match="planar"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32, np.uint32, np.float64])
def test_other_sample_types(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 5), dtype))
    with pytest.raises(PhotoUnsupportedError, match="8 or 16 bit"):
        read(tmp_path / "a.tif")


def test_float_colour(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 5, 3), np.float32), photometric="rgb")
    with pytest.raises(PhotoUnsupportedError, match="this kind of TIFF cannot be read"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("format", "suffix"), [("PNG", "png"), ("TIFF", "tif"), ("JPEG", "jpg"), ("WEBP", "webp"), ("AVIF", "avif")]
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_pixel(tmp_path: Path, format: str, suffix: str, mode: str) -> None:
    photo = read(saved(tmp_path / f"a.{suffix}", Image.new(mode, (1, 1), (100,) * len(mode)), format=format))
    assert photo.pixels.shape == (1, 1, 3)
    assert np.abs(photo.pixels.astype(int) - 100).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5_000_000), (5000, 1), (3000, 4000)])
def test_bands_cover_all_rows_once(height: int, width: int) -> None:
    parts = list(bands(height, width))
    rows = np.concatenate([np.arange(height)[part] for part in parts])
    assert np.array_equal(rows, np.arange(height))
    assert len({part.stop - part.start for part in parts[:-1]}) <= 1


@pytest.mark.parametrize(
    ("source", "target"), [(1023, 65535), (4095, 65535), (65535, 1023), (65535, 255), (255, 65535)]
)
def test_rescaling_rounds_half_up(source: int, target: int) -> None:
    values = np.arange(source + 1, dtype=np.uint16)
    expected = np.floor(values.astype(np.float64) * target / source + 0.5)
    assert np.array_equal(rescaled(values, source, target), expected)


def test_more_bits_and_back_is_exact() -> None:
    values = np.arange(1024, dtype=np.uint16)
    assert np.array_equal(rescaled(rescaled(values, 1023, 65535), 65535, 1023), values)


def test_levels() -> None:
    bytes_ = np.arange(256, dtype=np.uint8)
    assert with_depth(bytes_, np.uint8) is bytes_
    assert np.array_equal(with_depth(bytes_, np.uint16), bytes_.astype(np.uint16) * 257)
    assert np.array_equal(with_depth(with_depth(bytes_, np.uint16), np.uint8), bytes_)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_writing_stored_rows_into_the_view_turns_them(orientation: int) -> None:
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    upright = np.zeros((3, 2, 3) if swaps_sides(orientation) else (2, 3, 3), np.uint8)
    unturned(upright, orientation)[:] = stored
    image = Image.fromarray(stored)
    expected = image.transpose(TRANSPOSES[orientation]) if orientation > 1 else image
    assert np.array_equal(upright, np.asarray(expected))


ALPHAS = nps.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 0, 0, 1, 255])
)


def numbered(shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Each pixel a colour of its own."""
    return (
        (np.arange(np.prod(shape), dtype=np.uint16)[:, np.newaxis] + [0, 1000, 2000])
        .reshape(*shape, 3)
        .astype(np.uint16)
    )


@given(ALPHAS)
def test_filled_from_a_nearest_visible_pixel(alpha: NDArray[np.uint8]) -> None:
    before = numbered(alpha.shape)
    after = before.copy()
    fill_hidden(after, alpha)
    visible = np.argwhere(alpha > 0)
    assert np.array_equal(after[alpha > 0], before[alpha > 0])
    for y, x in np.argwhere(alpha == 0):
        if not len(visible):
            assert np.array_equal(after[y, x], before[y, x])
            continue
        source = np.argwhere((before == after[y, x]).all(axis=2))[0]
        assert alpha[tuple(source)] > 0
        assert np.abs(source - [y, x]).sum() == np.abs(visible - [y, x]).sum(axis=1).min()


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    alpha = (np.random.default_rng(0).random((40, 30)) > 0.97).astype(np.uint8)
    expected, got = numbered(alpha.shape), numbered(alpha.shape)
    fill_hidden(expected, alpha)
    monkeypatch.setattr(module, "_BLOCK", block)
    fill_hidden(got, alpha)
    assert np.array_equal(got, expected)


def test_blocks_without_hidden_pixels_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 4)
    alpha = np.full((12, 5), 255, np.uint8)
    alpha[5, 2] = 0
    pixels = numbered(alpha.shape)
    expected = pixels.copy()
    expected[5, 2] = expected[5, 1]
    fill_hidden(pixels, alpha)
    assert np.array_equal(pixels, expected)
