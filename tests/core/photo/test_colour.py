"""Colour: the colour a file shows is the same after reading and writing, in wide spaces too."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pocketprior.core.errors import PhotoUnsupportedError
from pocketprior.core.photo import colour
from pocketprior.core.photo.colour import (
    BT2020,
    DISPLAY_P3,
    SRGB,
    Primaries,
    checked,
    from_code_points,
    from_gamma,
    profile,
)
from pocketprior.core.photo.io import read, write

ADOBE_RGB: Primaries = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.3290))
PROPHOTO: Primaries = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585))
WIDE = {
    "display-p3": profile(DISPLAY_P3),
    "adobe-rgb": profile(ADOBE_RGB, 563 / 256),
    "prophoto": profile(PROPHOTO, 1.8),
    "bt2020": profile(BT2020),
}


def saturated(step: int = 51) -> NDArray[np.uint8]:
    """All corners, edges and the inside of the RGB cube: colours sRGB cannot show among them."""
    axis = np.arange(0, 256, step, dtype=np.uint8)
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return cube.reshape(len(axis), -1, 3)


def shown(path: Path) -> NDArray[np.float64]:
    """CIE L*a*b* (D50) of each pixel, as a colour-managed viewer takes it from file and profile."""
    with Image.open(path) as image:
        icc = image.info.get("icc_profile")
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc) if icc else ImageCms.createProfile("sRGB"))
        to_lab = ImageCms.buildTransform(source, ImageCms.createProfile("LAB"), "RGB", "LAB")
        lab = np.asarray(ImageCms.applyTransform(image.convert("RGB"), to_lab)).astype(float)
    signed = np.where(lab[..., 1:] > 127, lab[..., 1:] - 256, lab[..., 1:])
    return np.concatenate([lab[..., :1] * 100 / 255, signed], axis=-1)


def lab_of(pixels: NDArray[np.uint8], primaries: Primaries, gamma: float | None) -> NDArray[np.float64]:
    """L*a*b* (D50) by the textbook, as a check on profiles and colour engine: CIE 15, Bradford."""
    light = pixels / 255
    linear = light**gamma if gamma else np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)

    def xyz(xy: tuple[float, float]) -> NDArray[np.float64]:
        return np.array([xy[0], xy[1], 1 - xy[0] - xy[1]]) / xy[1]

    columns = np.stack([xyz(xy) for xy in primaries[:3]], 1)
    white, d50 = xyz(primaries[3]), np.array([0.96422, 1.0, 0.82521])
    matrix = columns * np.linalg.solve(columns, white)
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(cone) @ np.diag((cone @ d50) / (cone @ white)) @ cone
    ratio = linear @ (adapt @ matrix).T / d50
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def save(path: Path, pixels: NDArray[np.uint8], icc: bytes | None, **options: object) -> Path:
    Image.fromarray(pixels).save(path, icc_profile=icc, **options)
    return path


@pytest.mark.parametrize(
    ("primaries", "gamma"), [(SRGB, None), (DISPLAY_P3, None), (ADOBE_RGB, 563 / 256), (BT2020, 2.4)]
)
def test_built_profiles_mean_what_they_say(tmp_path: Path, primaries: Primaries, gamma: float | None) -> None:
    pixels = saturated()
    path = save(tmp_path / "a.png", pixels, profile(primaries, gamma))
    expected = np.clip(lab_of(pixels, primaries, gamma), [0, -128, -128], [100, 127, 127])
    assert np.abs(shown(path) - expected).max() < 1.0  # 8-bit L*a*b* has steps of 0.4 and 1


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize(("suffix", "options"), [(".png", {}), (".tif", {}), (".webp", {"lossless": True})])
def test_wide_gamut_shows_the_same_after_a_round_trip(
    tmp_path: Path, name: str, suffix: str, options: dict[str, object]
) -> None:
    source = save(tmp_path / f"in{suffix}", saturated(), WIDE[name], **options)
    photo = read(source)
    assert photo.notices == ()
    target = tmp_path / "out.png"
    write(photo, target)
    assert np.array_equal(shown(source), shown(target))


@pytest.mark.parametrize("name", WIDE)
def test_wide_gamut_through_jpeg(tmp_path: Path, name: str) -> None:
    flat = np.repeat(np.repeat(saturated(85), 16, axis=0), 16, axis=1)
    source = save(tmp_path / "in.jpg", flat, WIDE[name], quality=97, subsampling=0)
    target = tmp_path / "out.jpg"
    write(read(source), target, quality=97)
    assert read(target).icc == WIDE[name]
    middle = np.s_[8::16, 8::16]
    assert np.abs(shown(source)[middle] - shown(target)[middle]).max() <= 3


def test_wide_gamut_is_not_srgb_clipped(tmp_path: Path) -> None:
    """The alternative would not do: sRGB loses what makes the photo wide."""
    pixels = saturated()
    source = save(tmp_path / "in.png", pixels, WIDE["display-p3"])
    clipped = save(tmp_path / "srgb.png", pixels, None)
    assert np.abs(shown(source) - shown(clipped)).max() > 10


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif", ".heic"])
def test_profile_is_carried_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / "in.png", saturated(), WIDE["display-p3"])
    target = tmp_path / f"out{suffix}"
    write(read(source), target)
    assert read(target).icc == WIDE["display-p3"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".avif", ".heic"])
def test_grey_profile_is_carried(tmp_path: Path, suffix: str) -> None:
    grey, icc = np.tile(np.arange(256, dtype=np.uint8), (8, 1)), profile(None, 2.2)
    target = tmp_path / f"out{suffix}"
    write(read(save(tmp_path / "in.png", grey, icc)), target)
    photo = read(target)
    assert photo.grey
    assert photo.icc == icc
    assert photo.notices == ()


def test_grey_profile_becomes_srgb_where_there_is_no_grey(tmp_path: Path) -> None:
    """Grey of gamma 1.8 in WebP: other sRGB values, the same lightness."""
    grey, gamma = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (8, 1)), 1.8
    target = tmp_path / "out.webp"
    write(read(save(tmp_path / "in.png", grey, profile(None, gamma))), target)
    expected = lab_of(np.repeat(grey[..., np.newaxis], 3, 2), SRGB, gamma)[..., 0]
    assert np.abs(shown(target)[..., 0] - expected).max() < 1.5


def test_damaged_profile_is_dropped_with_a_notice(tmp_path: Path) -> None:
    photo = read(save(tmp_path / "a.png", saturated(), b"this is no profile"))
    assert photo.icc is None
    assert "damaged" in photo.notices[0]


def test_profile_of_other_samples_is_dropped_with_a_notice(tmp_path: Path) -> None:
    photo = read(save(tmp_path / "a.png", saturated(), profile(None, 2.2)))
    assert photo.icc is None
    assert "GRAY" in photo.notices[0]


@pytest.mark.parametrize("gamma", [1.8, 2.2, 2.4, None])
def test_usual_tone_curves_raise_no_notice(gamma: float | None) -> None:
    assert checked(profile(ADOBE_RGB, gamma), grey=False)[1] == ()


@pytest.mark.parametrize("primaries", [SRGB, None])
def test_linear_light_is_carried_with_a_notice(primaries: Primaries | None) -> None:
    icc = profile(primaries, 1.0)
    kept, notices = checked(icc, grey=primaries is None)
    assert kept == icc
    assert "tone curve" in notices[0]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((1, 13), None),
        ((1, 1), None),
        ((2, 2), None),
        ((6, 6), None),
        ((12, 13), profile(DISPLAY_P3)),
        ((9, 1), profile(BT2020)),
        ((1, 4), profile(SRGB, 2.2)),
    ],
)
def test_code_points(codes: tuple[int, int], expected: bytes | None) -> None:
    assert from_code_points(*codes) == (expected, ())


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_curves_are_refused(transfer: int) -> None:
    with pytest.raises(PhotoUnsupportedError, match="HDR"):
        from_code_points(9, transfer)


def test_unknown_code_points_are_told() -> None:
    assert from_code_points(22, 13)[0] is None
    assert "22/13" in from_code_points(22, 13)[1][0]


def test_gamma_chunks() -> None:
    adobe = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    srgb = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
    assert from_gamma(0.45455, None, grey=False) is None
    assert from_gamma(0.45455, srgb, grey=False) is None
    assert from_gamma(None, adobe, grey=False) == profile(ADOBE_RGB)
    assert from_gamma(1.0, None, grey=False) == profile(SRGB, 1.0)
    assert from_gamma(1.0, adobe, grey=True) == profile(None, 1.0)


@pytest.mark.parametrize("numbers", [(0.0,) * 8, (0.3, 0.3) * 4])
def test_nonsense_in_gamma_chunks_is_ignored(numbers: tuple[float, ...]) -> None:
    assert from_gamma(1e-9, numbers, grey=False) is None


def cmyk_profile() -> bytes:
    """A tiny CMYK profile: lut8 with two grid points per ink, so that full inks have known colours (ICC.1 10.10)."""
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
    lightness = 100 - corners @ [30, 40, 10, 90]
    lab = np.stack([np.maximum(lightness, 0), corners @ [-30, 60, -5, 0], corners @ [-40, 0, 70, 0]], -1)
    grid = np.clip(np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], -1), 0, 255).round().astype(np.uint8)
    ramp = bytes(range(256))
    identity = b"".join(round(v * 65536).to_bytes(4, "big") for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid.tobytes() + ramp * 3
    tags = {
        b"desc": colour._text_tag("test"),
        b"cprt": colour._text_tag("none"),
        b"wtpt": colour._xyz_tag(colour._D50),
        b"A2B0": lut,
    }
    packed = bytearray(colour._packed(tags, b"CMYK"))
    packed[12:16], packed[20:24] = b"prtr", b"Lab "
    return bytes(packed)


@pytest.mark.parametrize(("suffix", "options"), [(".jpg", {"quality": 100}), (".tif", {})])
def test_cmyk_is_converted_through_its_profile(tmp_path: Path, suffix: str, options: dict[str, object]) -> None:
    inks = np.zeros((16, 64, 4), np.uint8)
    for index, ink in enumerate([(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0)]):
        inks[:, 16 * index : 16 * index + 16] = ink
    path = tmp_path / f"in{suffix}"
    Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes()).save(
        path, icc_profile=cmyk_profile(), **options
    )
    photo = read(path)
    assert photo.icc is None
    assert "CMYK was converted to sRGB through its profile" in photo.notices
    with Image.open(path) as image:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(cmyk_profile())),
            ImageCms.createProfile("sRGB"),
            "CMYK",
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        expected = np.asarray(ImageCms.applyTransform(image, transform))
    assert np.array_equal(photo.pixels, expected)
    white, cyan, magenta, yellow = (photo.pixels[8, x].astype(int) for x in (8, 24, 40, 56))
    assert white.min() > 250
    assert cyan[2] > cyan[0]
    assert magenta[0] > magenta[1]
    assert min(yellow[:2]) > yellow[2]


def test_cmyk_without_profile_is_converted_with_a_notice(tmp_path: Path) -> None:
    inks = np.tile(np.array([255, 0, 0, 0], np.uint8), (8, 8, 1))
    path = tmp_path / "in.jpg"
    Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes()).save(path, quality=100)
    photo = read(path)
    assert "plain formula" in photo.notices[0]
    assert np.abs(photo.pixels[4, 4].astype(int) - [0, 255, 255]).max() <= 2


def test_lab_is_converted(tmp_path: Path) -> None:
    rgb = saturated(85)
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    path = tmp_path / "in.tif"
    ImageCms.applyTransform(Image.fromarray(rgb), to_lab).save(path)
    photo = read(path)
    expected, got = lab_of(rgb, SRGB, None), lab_of(photo.pixels, SRGB, None)
    assert np.abs(expected - got).max() < 4  # 8-bit L*a*b* rounds coarsely, saturated blues most
    assert photo.notices == ("LAB was converted to sRGB through its profile",)


def test_profile_without_curves_is_dropped_with_a_notice() -> None:
    empty = colour._packed({b"desc": colour._text_tag("RGB, but how?")}, b"RGB ")
    assert checked(empty, grey=False)[0] is None
    assert "cannot be used" in checked(empty, grey=False)[1][0]
