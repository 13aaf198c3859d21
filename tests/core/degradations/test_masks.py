from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketprior.core.degradations.masks import BRUSHES, brush_mask, scratches
from pocketprior.core.degradations.window import Window


def shares(side: int, thickness) -> list[float]:
    return [brush_mask(side, side, thickness, np.random.default_rng(seed)).mean() for seed in range(30)]


def test_thicker_brushes_hide_more() -> None:
    means = [np.mean(shares(128, thickness)) for thickness in ("thin", "medium", "thick")]
    assert means == sorted(means)
    assert 0.01 < means[0] < 0.15
    assert 0.2 < means[2] < 0.6


@pytest.mark.parametrize("thickness", BRUSHES)
def test_small_and_large_images_are_hidden_alike(thickness) -> None:
    assert np.mean(shares(64, thickness)) == pytest.approx(np.mean(shares(256, thickness)), rel=0.35)


@given(seed=st.integers(0, 2**32), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_mask_is_seeded_and_hides_something(seed: int, height: int, width: int) -> None:
    for thickness in BRUSHES:
        first, second = (brush_mask(height, width, thickness, np.random.default_rng(seed)) for _ in range(2))
        assert first.shape == (height, width)
        assert first.dtype == np.bool_
        assert first.any()
        np.testing.assert_array_equal(first, second)


def blank(height: int, width: int) -> Window:
    return Window.whole(np.zeros((height, width, 3), np.uint8))


def test_scratches_are_fine_and_upright(rng) -> None:
    mask = scratches(blank(200, 200), 6, 200.0, 0.02, rng)
    assert mask.shape == (200, 200)
    assert 0.4 < mask.max() <= 1
    assert 0.001 < (mask > 0.1).mean() < 0.05
    down, across = (np.abs(np.diff(mask, axis=axis)).sum() for axis in (0, 1))
    assert across > 3 * down


def test_no_scratches_leave_no_mark(rng) -> None:
    assert scratches(blank(30, 20), 0, 30.0, 0.1, rng).max() == 0
    assert scratches(blank(1, 1), 3, 1.0, 0.1, rng).shape == (1, 1)
