"""Colour spaces of photo files: which profile is kept, which is converted, which is built.

Kept. A photo in an RGB space of its own (Display P3, Adobe RGB, ProPhoto, a scanner's) or in a grey space is restored
in its own encoded values, and the profile goes into the result unchanged. Converting to sRGB would clip every colour
that sRGB does not have, and nothing brings them back; so a pixel that the restoration does not change is the same
colour to the last bit. The model was trained on sRGB and sees the wider space as slightly paler, which restoration does
not mind as long as the tone curve is of the usual kind: where mid grey is far from sRGB's (linear light), a notice says
so.

Converted to sRGB. Spaces that are not RGB or grey (CMYK, YCCK, Lab), through the file's own profile.

Built. A space that a file describes by numbers instead of a profile (PNG gAMA and cHRM, code points of PNG cICP, AVIF
and HEIF) becomes an ICC profile, so that the result can keep it in any format.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ..errors import PhotoUnsupportedError
from ..limits import LIGHTNESS_TOLERANCE

__all__ = ["BT2020", "DISPLAY_P3", "SRGB", "checked", "chosen", "from_code_points", "from_gamma", "profile", "to_srgb"]

Primaries: TypeAlias = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
Convert: TypeAlias = Callable[[Image.Image], Image.Image]
Kept: TypeAlias = tuple[bytes | None, tuple[str, ...]]  # the profile, None for sRGB, and notices

# CIE xy of red, green, blue, white (ITU-T H.273, table 2: codes 1, 12, 9)
SRGB: Primaries = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290))
DISPLAY_P3: Primaries = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290))
BT2020: Primaries = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290))
_PRIMARIES_BY_CODE = {1: SRGB, 2: SRGB, 5: SRGB, 6: SRGB, 7: SRGB, 9: BT2020, 12: DISPLAY_P3}
_GAMMAS_BY_CODE = {1: None, 2: None, 4: 2.2, 5: 2.8, 6: None, 8: 1.0, 13: None, 14: None, 15: None}  # None: sRGB's
_HDR_CURVES = {16: "PQ", 18: "HLG"}

_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # g, a, b, c, d of ICC.1 parametric type 3
_D50 = np.array([0.9642, 1.0, 0.8249])  # the white of ICC's connection space
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

_MID_GREY = 128
_MID_GREY_LIGHTNESS = 53.6  # L* of sRGB 128


def checked(icc: bytes | None, *, grey: bool) -> Kept:
    """The profile to keep for a photo with RGB or grey samples, and notices.

    A profile that is damaged or belongs to another kind of samples is dropped with a notice.
    """
    if not icc:
        return None, ()
    space, expected = _space(icc), "GRAY" if grey else "RGB"
    if space is None:
        return None, ("the colour profile is damaged and was left out; the photo is taken as sRGB",)
    if space != expected:
        return None, (f"the colour profile is for {space} samples, the photo has {expected}; it was left out",)
    try:
        lightness = _lightness_of_mid_grey(icc, "L" if grey else "RGB")
    except ImageCms.PyCMSError:
        return None, ("the colour profile cannot be used and was left out; the photo is taken as sRGB",)
    if abs(lightness - _MID_GREY_LIGHTNESS) <= LIGHTNESS_TOLERANCE:
        return icc, ()
    return icc, (
        f"the colour profile has an unusual tone curve (mid grey at L* {lightness:.0f}, sRGB has 54): colours are "
        "kept, but the model expects a curve like sRGB's; convert the photo first for the best result",
    )


def to_srgb(icc: bytes | None, mode: str) -> tuple[Convert, str]:
    """A function that converts an image of Pillow mode CMYK, LAB or L to an sRGB "RGB" image, and a notice.

    Relative colorimetric with black point compensation, as photo editors do. CMYK without a usable profile takes
    the plain formula (1 - C)(1 - K).
    """
    fits = icc is not None and _space(icc) == {"CMYK": "CMYK", "L": "GRAY", "LAB": "Lab"}[mode]
    if not fits and mode != "LAB":
        notice = f"{mode} without a usable colour profile was converted to sRGB by the plain formula"
        return lambda band: band.convert("RGB"), notice
    source = _opened(icc) if icc and fits else _standard("LAB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    transform = ImageCms.buildTransform(source, _standard("sRGB"), mode, "RGB", intent, flags)
    convert = cast(Convert, partial(ImageCms.applyTransform, transform=transform))
    return convert, f"{mode} was converted to sRGB through its profile"


def chosen(embedded: bytes | None, codes: tuple[int, int] | None, *, grey: bool) -> Kept:
    """The profile of a photo and notices: the embedded one, else one built from H.273 codes; None for sRGB.

    Raises PhotoUnsupportedError where the codes say HDR.
    """
    built, notices = from_code_points(*codes) if codes else (None, ())
    if embedded:
        return checked(embedded, grey=grey)
    icc, curve_notices = checked(None if grey else built, grey=grey)
    return icc, notices + curve_notices


def from_code_points(primaries: int, transfer: int) -> Kept:
    """The profile for colour described by ITU-T H.273 code points (None: sRGB), and notices.

    Raises PhotoUnsupportedError for HDR curves: their result would need an HDR file, which is not written here.
    """
    if transfer in _HDR_CURVES:
        raise PhotoUnsupportedError(
            f"it is an HDR image ({_HDR_CURVES[transfer]}), which would lose its brightness here; "
            "export it as a standard (SDR) photo first"
        )
    if primaries not in _PRIMARIES_BY_CODE or transfer not in _GAMMAS_BY_CODE:
        return None, (f"colour described by the codes {primaries}/{transfer} is not known here; taken as sRGB",)
    space, gamma = _PRIMARIES_BY_CODE[primaries], _GAMMAS_BY_CODE[transfer]
    return (None if (space, gamma) == (SRGB, None) else profile(space, gamma)), ()


def from_gamma(encoding: float | None, chromaticities: Sequence[float] | None, *, grey: bool) -> bytes | None:
    """The profile for a PNG with gAMA and cHRM; None where they say sRGB, or nonsense.

    encoding: exponent from light to samples, 1 / 2.2 is usual; chromaticities: x, y of white, red, green, blue.
    """
    gamma = 1 / encoding if encoding and not math.isclose(encoding, 1 / 2.2, abs_tol=0.01) else None
    space = SRGB
    if chromaticities and not grey:
        white, red, green, blue = ((chromaticities[at], chromaticities[at + 1]) for at in range(0, 8, 2))
        space = (red, green, blue, white)
    if gamma is None and np.allclose(space, SRGB, atol=0.002):
        return None
    try:
        return profile(None if grey else space, gamma)
    except (np.linalg.LinAlgError, ZeroDivisionError, OverflowError, ValueError, struct.error):
        return None


def profile(primaries: Primaries | None, gamma: float | None = None) -> bytes:
    """An ICC v4 display profile: RGB with `primaries`, or grey for None.

    gamma: exponent of the tone curve; None for sRGB's curve.
    """
    tags = {
        b"desc": _text_tag("RGB" if primaries else "Grey"),
        b"cprt": _text_tag("No copyright"),
        b"wtpt": _xyz_tag(_D50),
    }
    kind, numbers = (3, _SRGB_CURVE) if gamma is None else (0, (gamma,))
    curve = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _fixed(numbers)
    if primaries is None:
        return _packed({**tags, b"kTRC": curve}, b"GRAY")
    for letter, column in zip((b"r", b"g", b"b"), _colorants(primaries).T, strict=True):
        tags[letter + b"XYZ"] = _xyz_tag(column)
        tags[letter + b"TRC"] = curve
    tags[b"chad"] = b"sf32\0\0\0\0" + _fixed(_adaptation(_xyz(primaries[3])).ravel())
    return _packed(tags, b"RGB ")


def _opened(icc: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(icc))


def _standard(space: Literal["LAB", "sRGB"]) -> ImageCms.ImageCmsProfile:
    make: Any = ImageCms.createProfile  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return ImageCms.ImageCmsProfile(make(space))


def _space(icc: bytes) -> str | None:
    """Colour space of a profile ("RGB", "GRAY", "CMYK", "Lab" ...), or None for one that cannot be used."""
    try:
        return str(cast(Any, _opened(icc)).profile.xcolor_space).strip()
    except (OSError, ImageCms.PyCMSError):
        return None


def _lightness_of_mid_grey(icc: bytes, mode: str) -> float:
    """L* of the encoded value 128 in a space whose Pillow mode is `mode`."""
    transform = ImageCms.buildTransform(_opened(icc), _standard("LAB"), mode, "LAB")
    patch = ImageCms.applyTransform(Image.new(mode, (1, 1), (_MID_GREY,) * len(mode)), transform)
    assert patch is not None
    return float(np.asarray(patch)[0, 0, 0]) * 100 / 255


def _xyz(xy: tuple[float, float]) -> NDArray[np.float64]:
    return np.array([xy[0] / xy[1], 1.0, (1 - xy[0] - xy[1]) / xy[1]])


def _adaptation(white: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bradford matrix from a white (XYZ) to D50 (ICC.1:2022, annex E)."""
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ (scale[:, np.newaxis] * _BRADFORD)


def _colorants(primaries: Primaries) -> NDArray[np.float64]:
    """Columns: XYZ of full red, green, blue, adapted to D50; they add up to D50."""
    unscaled = np.stack([_xyz(xy) for xy in primaries[:3]], axis=1)
    white = _xyz(primaries[3])
    return _adaptation(white) @ (unscaled * np.linalg.solve(unscaled, white))


def _fixed(numbers: Iterable[float]) -> bytes:
    """s15Fixed16Number."""
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _xyz_tag(xyz: Iterable[float]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(xyz)


def _text_tag(text: str) -> bytes:
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 2 * len(text), 28) + text.encode("utf-16-be")


def _packed(tags: dict[bytes, bytes], space: bytes) -> bytes:
    """Header, tag table and tags of a display profile (ICC.1:2022, clause 7)."""
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    header = struct.pack(">II4s4s4s", size, 0, b"\x04\x30\0\0", b"mntr", space) + b"XYZ " + date + b"acsp"
    header += bytes(28) + _fixed(_D50)
    return header.ljust(128, b"\0") + table + body
