from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.metrics.planes import gaussian_taps, mean_2x2, smooth, valid


def test_valid_is_correlation_without_padding():
    field, taps = np.random.default_rng(0).normal(size=(9, 7)), np.array([1.0, -2.0, 5.0])
    assert valid(field, taps, 0) == pytest.approx(np.apply_along_axis(np.correlate, 0, field, taps))
    assert valid(field, taps, 1) == pytest.approx(np.apply_along_axis(np.correlate, 1, field, taps))
    assert smooth(field, taps) == pytest.approx(valid(valid(field, taps, 1), taps, 0))


def test_gaussian_taps():
    taps = gaussian_taps(5, 1.5)
    assert taps.sum() == pytest.approx(1)
    assert taps[5] / taps[8] == pytest.approx(np.exp(2))
    assert np.array_equal(taps, taps[::-1])


def test_mean_2x2():
    assert np.array_equal(mean_2x2(np.arange(8.0).reshape(2, 4)), [[2.5, 4.5]])
