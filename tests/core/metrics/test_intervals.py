from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pocketprior.core.limits import FEWEST_PHOTOS
from pocketprior.core.metrics.intervals import paired


def test_interval_of_equal_differences_is_a_point() -> None:
    found = paired([1.5, 2.5, 3.5, 0.5, 9.5, 4.5], [1.0, 2.0, 3.0, 0.0, 9.0, 4.0])
    assert found == (0.5, 0.5, 0.5, 6)
    assert found.shown


def test_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    """Of 200 draws of 20 normal differences; a percentile bootstrap of 20 is known to be a little narrow."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = paired(list(rng.normal(0.3, 1.0, 20)), [0.0] * 20)
        held += found.low <= 0.3 <= found.high
    assert 0.88 <= held / 200 <= 0.98


def test_interval_is_about_that_of_the_t_test() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.normal(30, 4, 40)
    ours = theirs + rng.normal(0.2, 0.3, 40)
    found = paired(list(ours), list(theirs))
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_few_photos_show_nothing() -> None:
    assert not paired([1.0] * (FEWEST_PHOTOS - 1), [0.0] * (FEWEST_PHOTOS - 1)).shown
    assert paired([1.0] * FEWEST_PHOTOS, [0.0] * FEWEST_PHOTOS).shown
    assert paired([0.0] * FEWEST_PHOTOS, [1.0] * FEWEST_PHOTOS).shown
    assert not paired([1.0, -1.0] * 4, [0.0] * 8).shown


def test_interval_is_repeatable() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = list(rng.normal(size=10)), list(rng.normal(size=10))
    assert paired(ours, theirs) == paired(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [1.0, 2.0]), ([], [])])
def test_lists_that_do_not_pair_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"longer|at least one"):
        paired(ours, theirs)
