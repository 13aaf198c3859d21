"""What a format cannot hold goes with a notice, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.errors import PhotoWriteError
from pocketprior.core.photo.encode import FILE_FORMATS, fitted
from pocketprior.core.photo.photo import GainMap, Photo

PIXELS = np.zeros((2, 3, 3), np.uint8)
FULL = Photo(
    PIXELS.astype(np.uint16),
    icc=b"icc",
    exif=b"exif",
    xmp=b"xmp",
    iptc=b"iptc",
    text=(("Comment", "a"), ("Title", "b")),
    dpi=(300, 300),
    gain_map=GainMap(b"jpeg", b""),
)
LOST = {
    "AVIF": ["8 bits", "HDR gain map", "IPTC", "Comment, Title"],
    "HEIF": ["10 bits", "HDR gain map", "IPTC", "Comment, Title"],
    "JPEG": ["8 bits", "(Title)"],
    "PNG": ["HDR gain map", "IPTC"],
    "TIFF": ["HDR gain map", "Comment, Title"],
    "WEBP": ["8 bits", "HDR gain map", "IPTC", "Comment, Title"],
}


@pytest.mark.parametrize("format", FILE_FORMATS)
def test_everything_at_once(format: str) -> None:
    photo, notices = fitted(FULL, format)
    assert len(notices) == len(LOST[format])
    for notice, words in zip(notices, LOST[format], strict=True):
        assert words in notice
        assert FILE_FORMATS[format].suffixes[0] in notice
    assert (photo.icc, photo.exif, photo.xmp, photo.dpi) == (FULL.icc, FULL.exif, FULL.xmp, FULL.dpi)


@pytest.mark.parametrize("format", FILE_FORMATS)
def test_plain_photo_loses_nothing(format: str) -> None:
    photo = Photo(PIXELS, icc=b"icc", exif=b"exif", xmp=b"xmp", text=())
    assert fitted(photo, format) == (photo, ())


def test_alpha() -> None:
    opaque = Photo(PIXELS, alpha=np.full((2, 3), 255, np.uint8))
    assert fitted(opaque, "JPEG")[0].alpha is None
    assert fitted(opaque, "PNG")[0].alpha is opaque.alpha
    with pytest.raises(PhotoWriteError, match="transparent"):
        fitted(Photo(PIXELS, alpha=np.zeros((2, 3), np.uint8)), "JPEG")
