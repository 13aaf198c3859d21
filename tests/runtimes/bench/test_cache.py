from __future__ import annotations

import numpy as np
import pytest

from pocketprior.runtimes.bench.methods import ResultCache
from support import packs


@pytest.fixture
def cache(tmp_path):
    return ResultCache(tmp_path / "deep" / "cache")


def never():
    raise AssertionError("computed again")


def test_an_image_is_made_once_per_key(cache):
    image = packs.photo(9, 7)
    assert np.array_equal(cache.image("a", lambda: image), image)
    kept = cache.image("a", never)
    assert (kept.dtype, kept.tolist()) == (np.uint8, image.tolist())
    with pytest.raises(AssertionError, match="computed again"):
        cache.image("b", never)


def test_numbers_are_made_once_per_key(cache):
    numbers = {"PSNR": float("inf"), "NIQE": 0.1 + 0.2}
    assert cache.numbers("a", lambda: numbers) == numbers
    assert cache.numbers("a", never) == numbers


def test_a_failure_leaves_nothing(cache):
    with pytest.raises(AssertionError):
        cache.numbers("a", never)
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []
