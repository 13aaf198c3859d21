from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pocketprior.runtimes.bench.intervals import LEAST, paired


def test_the_interval_is_about_that_of_the_t_test():
    rng = np.random.default_rng(1)
    theirs = rng.normal(30, 4, 40)
    ours = theirs + rng.normal(0.2, 0.3, 40)
    found = paired(ours.tolist(), theirs.tolist())
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found.mean == pytest.approx(float((ours - theirs).mean()))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert found.shown
    assert paired(ours.tolist(), theirs.tolist()) == found


def test_nothing_is_shown_where_the_interval_holds_zero_or_photos_are_few():
    assert not paired([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]).shown
    assert not paired([2.0] * (LEAST - 1), [1.0] * (LEAST - 1)).shown
    assert paired([2.0] * LEAST, [1.0] * LEAST).shown
    assert paired([1.0] * LEAST, [2.0] * LEAST) == (-1, -1, -1, LEAST)


def test_what_cannot_be_paired():
    with pytest.raises(ValueError, match="at least one"):
        paired([], [])
    with pytest.raises(ValueError, match="zip"):
        paired([1.0], [])
