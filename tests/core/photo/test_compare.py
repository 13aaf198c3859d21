"""Before and after in one image."""

from __future__ import annotations

import numpy as np
import packs
import pytest

from pocketprior.core.photo import resize
from pocketprior.core.photo.resize import GAP, side_by_side


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_both_halves_whole(dtype: type[np.uint8] | type[np.uint16]) -> None:
    before, after = packs.photo(20, 31, dtype, seed=1), packs.photo(20, 31, dtype, seed=2)
    image = side_by_side(before, after)
    assert (image.shape, image.dtype) == ((20, 62 + GAP, 3), dtype)
    np.testing.assert_array_equal(image[:, :31], before)
    np.testing.assert_array_equal(image[:, -31:], after)
    assert (image[:, 31:-31] == np.iinfo(dtype).max).all()


def test_large_photos_are_shown_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "HALF_PIXELS", 50)
    flat = np.full((20, 40, 3), 9, np.uint8)
    image = side_by_side(flat, flat + 1)
    assert image.shape == (5, 2 * 10 + GAP, 3)
    assert set(np.unique(image)) == {9, 10, 255}


def test_a_thin_photo_keeps_a_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "HALF_PIXELS", 10)
    assert side_by_side(np.zeros((1, 1000, 3), np.uint8), np.zeros((1, 1000, 3), np.uint8)).shape[0] == 1
