from __future__ import annotations

import numpy as np
import packs
import pytest

from pocketprior.runtimes.bench.cache import Cache


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "deep" / "cache")


def never():
    raise AssertionError("computed again")


def test_a_picture_is_made_once_per_key(cache):
    picture = packs.photo(9, 7)
    assert np.array_equal(cache.picture("a", lambda: picture), picture)
    kept = cache.picture("a", never)
    assert (kept.dtype, kept.tolist()) == (np.uint8, picture.tolist())
    with pytest.raises(AssertionError, match="computed again"):
        cache.picture("b", never)


def test_numbers_are_made_once_per_key(cache):
    numbers = {"PSNR": float("inf"), "NIQE": 0.1 + 0.2}
    assert cache.numbers("a", lambda: numbers) == numbers
    assert cache.numbers("a", never) == numbers


def test_a_failure_leaves_nothing(cache):
    with pytest.raises(AssertionError):
        cache.numbers("a", never)
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []
