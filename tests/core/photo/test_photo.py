"""The photo as a value."""

from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.errors import UsageError
from pocketprior.core.photo.photo import Photo, interleaved

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
ALPHA = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)
ALL = slice(0, 2)


def test_with_pixels_keeps_everything_else() -> None:
    photo = Photo(PIXELS, alpha=ALPHA, icc=b"profile", exif=b"exif", format="PNG", notices=("one",))
    changed = photo.with_pixels(255 - PIXELS)
    assert (changed.pixels == 255 - PIXELS).all()
    assert changed.alpha is ALPHA
    assert (changed.icc, changed.exif, changed.format, changed.notices) == (b"profile", b"exif", "PNG", ("one",))


def test_alpha_follows_the_depth_of_the_pixels() -> None:
    deep = Photo(PIXELS, alpha=ALPHA).with_pixels(PIXELS.astype(np.uint16) * 257)
    assert deep.alpha is not None
    assert (deep.alpha == ALPHA.astype(np.uint16) * 257).all()
    back = deep.with_pixels(PIXELS)
    assert back.alpha is not None
    assert (back.alpha == ALPHA).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 3), np.uint8),
        np.zeros((2, 3, 4), np.uint8),
        np.zeros((2, 3, 3), np.float32),
        np.zeros((0, 3, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"expected an image uint8 or uint16 \(height, width, 3\)"):
        Photo(pixels)


@pytest.mark.parametrize("alpha", [ALPHA[:1], ALPHA.astype(np.uint16)])
def test_alpha_must_fit(alpha: np.ndarray) -> None:
    with pytest.raises(UsageError, match="alpha is"):
        Photo(PIXELS, alpha=alpha)


def test_size_must_stay() -> None:
    with pytest.raises(UsageError, match="keep the size"):
        Photo(PIXELS).with_pixels(PIXELS[:, :2])


def test_interleaved_colours_and_alpha() -> None:
    samples = interleaved(Photo(PIXELS, alpha=ALPHA), ALL, dtype=np.uint8)
    assert (samples[..., :3] == PIXELS).all()
    assert (samples[..., 3] == ALPHA).all()


def test_interleaved_grey_is_the_rounded_mean() -> None:
    pixels = np.array([[[0, 0, 1], [0, 1, 1], [255, 255, 254]]], np.uint8)
    samples = interleaved(Photo(pixels, grey=True), slice(0, 1), dtype=np.uint8)
    assert samples[..., 0].tolist() == [[0, 1, 255]]


def test_interleaved_changes_depth() -> None:
    pixels = np.array([[[0, 128, 65535], [129, 32639, 32767]]], np.uint16)
    samples = interleaved(Photo(pixels), slice(0, 1), dtype=np.uint8)
    assert samples.tolist() == [[[0, 0, 255], [1, 127, 127]]]
