from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.metrics import psnr
from pocketprior.runtimes.bench.methods import ResultCache, best_setting
from pocketprior.runtimes.bench.trials import BenchPair

TRUE = np.full((16, 16, 3), 100, np.uint8)


@pytest.fixture
def cache(tmp_path):
    return ResultCache(tmp_path)


def test_the_best_is_found_and_the_search_ends_after_two_falls(cache):
    tried = []

    def method(image, setting):
        tried.append(setting)
        return image + np.uint8(1 + abs(setting - 3))

    score, setting = best_setting(range(9), method, [BenchPair("a", TRUE, TRUE)], cache, "v1")
    assert setting == 3
    assert score == psnr(TRUE + np.uint8(1), TRUE)
    assert tried == [0, 1, 2, 3, 4, 5]
    assert best_setting(range(9), method, [BenchPair("a", TRUE, TRUE)], cache, "v1") == (score, setting)
    assert len(tried) == 6, "results are kept"
    best_setting(range(9), method, [BenchPair("a", TRUE, TRUE)], cache, "v2")
    assert len(tried) == 12, "but not those of another version"


def test_other_photos_are_other_results(cache):
    def method(image, setting):
        return image + np.uint8(setting)

    assert best_setting((0, 5, 9), method, [BenchPair("a", TRUE, TRUE - np.uint8(5))], cache, "v1")[1] == 5
    assert best_setting((0, 5, 9), method, [BenchPair("a", TRUE, TRUE - np.uint8(9))], cache, "v1")[1] == 9
