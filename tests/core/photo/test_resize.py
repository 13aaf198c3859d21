"""Area means: equal to the definition, for any size, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketprior.core.photo import resize
from pocketprior.core.photo.resize import _GAP, shrink, side_by_side, thumbnail
from support import packs

SIZES = [(1, 1), (1, 7), (5, 3), (96, 96), (97, 101), (192, 96), (300, 40), (33, 500)]


def shares(size: int, side: int) -> NDArray[np.float64]:
    """(side, size): the share of input cell j in output cell i, from the definition."""
    edges = [i * size / side for i in range(side + 1)]
    weights = np.zeros((side, size))
    for i in range(side):
        for j in range(size):
            weights[i, j] = max(0.0, min(edges[i + 1], j + 1) - max(edges[i], j))
    return weights / (size / side)


def random_photo(height: int, width: int, dtype: type[np.unsignedinteger] = np.uint8) -> NDArray[np.unsignedinteger]:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype, endpoint=True)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_equals_the_definition(height: int, width: int, dtype: type[np.unsignedinteger]) -> None:
    photo = random_photo(height, width, dtype)
    expected = np.einsum("iy,yxc,jx->cij", shares(height, 24), photo / np.iinfo(dtype).max, shares(width, 24))
    small = thumbnail(photo, 24)
    assert small.shape == (1, 3, 24, 24)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small[0], expected, rtol=0, atol=1e-7)


def test_a_photo_of_its_size_is_itself() -> None:
    photo = random_photo(24, 24)
    np.testing.assert_array_equal(thumbnail(photo, 24)[0].transpose(1, 2, 0), photo / np.float32(255))


@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_a_flat_photo_stays_flat(level: int) -> None:
    flat = np.full((101, 37, 3), level, np.uint8)
    np.testing.assert_allclose(thumbnail(flat, 96), level / 255, rtol=0, atol=1e-7)
    small = np.empty((10, 11, 3), np.uint8)
    shrink(flat, small)
    assert np.all(small == level)


def test_a_view_is_as_good_as_a_copy() -> None:
    photo = random_photo(60, 80)[::-1, ::2]
    np.testing.assert_array_equal(thumbnail(photo, 16), thumbnail(photo.copy(), 16))


def test_shrink_rounds_half_up() -> None:
    photo = np.array([[[0, 1, 2], [1, 2, 2]]], np.uint8)
    small = np.empty((1, 1, 3), np.uint8)
    shrink(photo, small)
    assert small.tolist() == [[[1, 2, 2]]]


def test_memory_is_a_few_rows() -> None:
    photo = np.zeros((4000, 2000, 3), np.uint8)
    tracemalloc.start()
    thumbnail(photo, 96)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_both_halves_whole(dtype: type[np.uint8] | type[np.uint16]) -> None:
    before, after = packs.photo(20, 31, dtype, seed=1), packs.photo(20, 31, dtype, seed=2)
    image = side_by_side(before, after)
    assert (image.shape, image.dtype) == ((20, 62 + _GAP, 3), dtype)
    np.testing.assert_array_equal(image[:, :31], before)
    np.testing.assert_array_equal(image[:, -31:], after)
    assert (image[:, 31:-31] == np.iinfo(dtype).max).all()


def test_large_photos_are_shown_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "_HALF_PIXELS", 50)
    flat = np.full((20, 40, 3), 9, np.uint8)
    image = side_by_side(flat, flat + 1)
    assert image.shape == (5, 2 * 10 + _GAP, 3)
    assert set(np.unique(image)) == {9, 10, 255}


def test_a_thin_photo_keeps_a_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "_HALF_PIXELS", 10)
    assert side_by_side(np.zeros((1, 1000, 3), np.uint8), np.zeros((1, 1000, 3), np.uint8)).shape[0] == 1
