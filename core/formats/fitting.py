"""What each format can hold, and what of a photo has to go when it is written there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..errors import PhotoWriteError
from ..photo import Photo
from .jpeg import LARGEST_SEGMENT

__all__ = ["TARGETS", "Target", "fitted"]

_LARGEST_PNG_SIDE = 2**31 - 1
_EXIF_PREFIX, _XMP_PREFIX, _IPTC_PREFIX = 6, 29, 26  # bytes before the data in a JPEG segment


@dataclass(frozen=True)
class Target:
    """A format as a place for photos."""

    suffixes: tuple[str, ...]
    quality: int | None  # default, 1 to 100; None: lossless
    bits: int = 8  # of a 16-bit photo that is written
    alpha: bool = True
    iptc: bool = False
    text: bool = False
    largest_side: int = _LARGEST_PNG_SIDE  # pixels


# Quality 95 with full chroma is visually lossless for photos; a source's own, lower quality is not kept, because it
# would put the blocks back that the restoration took away.
TARGETS: dict[str, Target] = {
    "AVIF": Target((".avif",), quality=90, largest_side=32768),
    "HEIF": Target((".heic", ".heif", ".hif"), quality=95, bits=10, largest_side=16384),
    "JPEG": Target((".jpg", ".jpeg", ".jpe", ".jfif"), quality=95, alpha=False, iptc=True, largest_side=65500),
    "PNG": Target((".png",), quality=None, bits=16, text=True),
    "TIFF": Target((".tif", ".tiff"), quality=None, bits=16, iptc=True),
    "WEBP": Target((".webp",), quality=95, largest_side=16383),
}


def _check_side(photo: Photo, target: Target) -> None:
    if max(photo.size) > target.largest_side:
        raise PhotoWriteError(
            f"the photo is {photo.size[1]} x {photo.size[0]} pixels, {target.suffixes[0]} holds at most "
            f"{target.largest_side} a side; write .png or .tif"
        )


def _check_deep_grey(photo: Photo, format: str) -> None:
    if format == "TIFF" and photo.grey and photo.alpha is not None and photo.pixels.dtype == np.uint16:
        raise PhotoWriteError("16-bit grey with transparency is a TIFF that hardly any program reads; write .png")


def _without_alpha(photo: Photo, target: Target) -> Photo:
    if photo.alpha is None or target.alpha:
        return photo
    if photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
        raise PhotoWriteError(f"the photo has transparent parts, which {target.suffixes[0]} cannot hold; write .png")
    return replace(photo, alpha=None)


def _too_long(photo: Photo) -> Iterator[tuple[str, str]]:
    """(field, name) of what does not fit into the one segment JPEG has for it."""
    for field, name, prefix in (
        ("exif", "EXIF", _EXIF_PREFIX),
        ("xmp", "XMP", _XMP_PREFIX),
        ("iptc", "IPTC", _IPTC_PREFIX),
    ):
        if len(getattr(photo, field) or b"") + prefix > LARGEST_SEGMENT:
            yield field, name


def _homeless(photo: Photo, format: str) -> Iterator[tuple[str, object, str]]:
    """(field, replacement, notice) of what the format has no place for."""
    target = TARGETS[format]
    suffix = target.suffixes[0]
    if photo.gain_map and format != "JPEG":
        yield "gain_map", None, f"the HDR gain map is not kept in {suffix}; write .jpg to keep it"
    if photo.iptc and not target.iptc:
        yield "iptc", None, f"the IPTC data are not kept in {suffix}; write .jpg or .tif to keep them"
    kept = photo.text if target.text else tuple(t for t in photo.text if format == "JPEG" and t[0] == "Comment")
    if len(kept) < len(photo.text):
        lost = ", ".join(keyword for keyword, _ in photo.text if keyword not in dict(kept))
        yield "text", kept, f"the text notes ({lost}) are not kept in {suffix}; write .png to keep them"
    for field, name in _too_long(photo) if format == "JPEG" else ():
        yield (
            field,
            None,
            f"the {name} data are longer than 64 KiB and not kept in {suffix}; write .png or .tif to keep them",
        )


def fitted(photo: Photo, format: str) -> tuple[Photo, tuple[str, ...]]:
    """The photo with what a format (a key of TARGETS) can hold, and a notice for each thing left out.

    Raises PhotoWriteError for what must not be left out silently: transparency, and sides that are too long.
    """
    target = TARGETS[format]
    _check_side(photo, target)
    _check_deep_grey(photo, format)
    photo, notices = _without_alpha(photo, target), tuple[str, ...]()
    if photo.pixels.dtype == np.uint16 and target.bits < 16:
        notices += (f"16-bit samples were rounded to {target.bits} bits, as {target.suffixes[0]} has no more",)
    for field, replacement, notice in _homeless(photo, format):
        photo = replace(photo, **{field: replacement})
        notices += (notice,)
    return photo, notices
