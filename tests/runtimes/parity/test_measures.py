"""Differences are exact, signed where they have a sign, and never NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pocketprior.runtimes.parity.findings import ArrayDifference, as_unit, measure, scale_of


def test_equal_arrays() -> None:
    array = np.random.default_rng(0).random((1, 3, 4, 5), np.float32)
    assert measure(array, array.copy()) == ArrayDifference(0, 0, math.inf, 0, 0, 60)


def test_numbers_of_a_known_difference() -> None:
    expected = np.zeros((1, 3, 2, 2), np.float32)
    given = expected.copy()
    given[0, 1] = -0.5
    given[0, 2, 0, 0] = 0.25
    found = measure(given, expected)
    assert found.max_abs == 0.5
    assert found.rmse == pytest.approx(math.sqrt((4 * 0.25 + 0.0625) / 12))
    assert found.psnr_db == pytest.approx(-20 * math.log10(found.rmse))
    assert found.shift == -0.5


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    expected = np.ones((1, 1, 1, 4), np.float32)
    given = np.array([np.nan, np.inf, -np.inf, 1.5], np.float32).reshape(1, 1, 1, 4)
    found = measure(given, expected)
    assert (found.broken, found.max_abs, found.shift) == (3, 0.5, 0.125)


def test_infinities_that_should_be_there() -> None:
    """As a mask of an attention has them."""
    expected = np.array([[-np.inf, 1, -np.inf]], np.float32)
    assert measure(expected.copy(), expected, scale_of(expected)).broken == 0
    assert measure(np.array([[-np.inf, 1, 0]], np.float32), expected).broken == 1


def test_the_sum_is_taken_in_float64() -> None:
    """A shift of 1e-8 is lost in float32 beside 1."""
    expected = np.ones((1, 1, 100, 100), np.float64)
    assert measure(expected + 1e-8, expected).shift == pytest.approx(1e-8)


def test_the_scale_is_that_of_the_reference() -> None:
    reference = np.full((1, 6), 20.0, np.float32)
    assert scale_of(reference) == 20
    assert scale_of(reference / 1000) == 1
    assert measure(reference + 2, reference, scale_of(reference)).max_abs == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (0,)])
def test_arrays_that_cannot_be_compared(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected two arrays of one shape"):
        measure(np.zeros(shape), np.zeros((0,) if shape == (0,) else (1, 3, 4, 5)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_are_from_0_to_1(dtype: type[np.uint8] | type[np.uint16]) -> None:
    picture = np.array([[[0, 0, np.iinfo(dtype).max]]], dtype)
    np.testing.assert_array_equal(as_unit(picture), np.array([0, 0, 1.0]).reshape(1, 3, 1, 1))
