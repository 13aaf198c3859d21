from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketprior.core.metrics import max_level_error, p999_error

FLAT = np.full((50, 40, 3), 100, np.uint8)  # 6000 samples: 99.9 % are 5994


def with_errors(count: int, size: int) -> np.ndarray:
    image = FLAT.copy()
    image.reshape(-1)[:count] += np.uint8(size)
    return image


def test_max_level_error_does_not_wrap():
    black = np.zeros((1, 1, 3), np.uint8)
    assert max_level_error(black, black + np.uint8(255)) == 255
    assert max_level_error(black + np.uint8(255), black) == 255
    wide = np.array([[[0, 0, 65535]]], np.uint16)
    assert max_level_error(wide, wide[..., ::-1]) == 65535


@given(st.integers(0, 5), st.integers(1, 155))
def test_p999_error_ignores_the_last_thousandth(count, size):
    assert p999_error(with_errors(count, size), FLAT) == 0
    assert max_level_error(with_errors(count, size), FLAT) == (size if count else 0)


@given(st.integers(7, 6000), st.integers(1, 155))
def test_p999_error_counts_more_than_a_thousandth(count, size):
    assert p999_error(with_errors(count, size), FLAT) == size


def test_results_are_plain_numbers():
    assert type(max_level_error(FLAT, FLAT)) is int
    assert type(p999_error(FLAT, FLAT)) is float
