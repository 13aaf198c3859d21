"""Colours under fully transparent pixels come from the nearest visible pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.typing import NDArray

from pocketprior.core.photo import alpha as module
from pocketprior.core.photo.alpha import fill_hidden

ALPHAS = nps.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 0, 0, 1, 255])
)


def numbered(shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Each pixel a colour of its own."""
    return (
        (np.arange(np.prod(shape), dtype=np.uint16)[:, np.newaxis] + [0, 1000, 2000])
        .reshape(*shape, 3)
        .astype(np.uint16)
    )


@given(ALPHAS)
def test_filled_from_a_nearest_visible_pixel(alpha: NDArray[np.uint8]) -> None:
    before = numbered(alpha.shape)
    after = before.copy()
    fill_hidden(after, alpha)
    visible = np.argwhere(alpha > 0)
    assert np.array_equal(after[alpha > 0], before[alpha > 0])
    for y, x in np.argwhere(alpha == 0):
        if not len(visible):
            assert np.array_equal(after[y, x], before[y, x])
            continue
        source = np.argwhere((before == after[y, x]).all(axis=2))[0]
        assert alpha[tuple(source)] > 0
        assert np.abs(source - [y, x]).sum() == np.abs(visible - [y, x]).sum(axis=1).min()


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    alpha = (np.random.default_rng(0).random((40, 30)) > 0.97).astype(np.uint8)
    expected, got = numbered(alpha.shape), numbered(alpha.shape)
    fill_hidden(expected, alpha)
    monkeypatch.setattr(module, "_BLOCK", block)
    fill_hidden(got, alpha)
    assert np.array_equal(got, expected)


def test_blocks_without_hidden_pixels_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 4)
    alpha = np.full((12, 5), 255, np.uint8)
    alpha[5, 2] = 0
    pixels = numbered(alpha.shape)
    expected = pixels.copy()
    expected[5, 2] = expected[5, 1]
    fill_hidden(pixels, alpha)
    assert np.array_equal(pixels, expected)
