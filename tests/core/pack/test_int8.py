"""Codes reach where they are nearest to what an array holds, and zero is one of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketprior.core.pack.int8 import CLIP_SHARES, HISTOGRAM_BINS, clip_range, quant_params

NUMBERS = st.floats(0, 1000, width=32)


@given(NUMBERS, st.floats(0.125, 1000, width=32))
def test_zero_is_a_code_and_the_ends_are_near_one(below: float, above: float) -> None:
    scale, zero = quant_params(-below, above)
    assert scale > 0
    assert 0 <= zero <= 255
    # Zero is moved to the nearest code, the ends with it.
    assert abs((0 - zero) * scale + below) <= scale
    assert abs((255 - zero) * scale - above) <= scale


def counts(values: np.ndarray, least: float, largest: float) -> np.ndarray:
    return np.histogram(values, HISTOGRAM_BINS, (least, largest))[0]


def error(values: np.ndarray, least: float, largest: float) -> float:
    scale, zero = quant_params(least, largest)
    codes = np.clip(np.round(values / scale) + zero, 0, 255)
    return float(np.square((codes - zero) * scale - values).sum())


def test_values_that_are_spread_evenly_keep_their_ends() -> None:
    values = np.linspace(-1, 2, 30_001)
    assert clip_range(-1.0, 2.0, counts(values, -1, 2)) == (-1.0, 2.0)


def test_a_few_far_values_are_cut_off() -> None:
    values = np.concatenate([np.random.default_rng(0).standard_normal(100_000), [-9.0, 12.0]])
    ends = clip_range(-9.0, 12.0, counts(values, -9, 12))
    assert -9 < ends[0] < ends[1] < 12
    assert error(values, *ends) < error(values, -9, 12)


def test_what_has_no_values_below_zero_starts_there() -> None:
    values = np.random.default_rng(0).random(10_000) ** 4
    least, largest = clip_range(0.0, 1.0, counts(values, 0, 1))
    assert least == 0
    assert CLIP_SHARES[0] <= largest <= 1


def test_nothing_but_zeros() -> None:
    assert clip_range(0.0, 0.0, np.zeros(HISTOGRAM_BINS, np.int64)) == (0.0, 0.0)
    assert quant_params(0.0, 0.0).scale > 0
