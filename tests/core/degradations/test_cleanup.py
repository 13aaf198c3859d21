"""The mixture of `cleanup`: how often what, and that good photos stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.degradations import TASKS
from pocketprior.core.degradations.cleanup import MIXTURE

DRAWS = 600


def photo(side: int = 48) -> np.ndarray:
    """8-bit levels, as of a file."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    waves = [0.5 + 0.4 * np.sin(y / 5 + x / 7 + phase) * np.cos(x / 1.5) for phase in (0, 1, 2)]
    return (np.round(np.stack(waves, axis=2) * 255) / 255).astype(np.float32)


@pytest.fixture(scope="module")
def errors() -> np.ndarray:
    """Root mean square error in grey levels of many draws."""
    draws = (TASKS["cleanup"](photo(), np.random.default_rng(seed)) for seed in range(DRAWS))
    return np.array([np.sqrt(np.mean(np.square((damaged - photo()) * 255))) for damaged in draws])


def test_shares_add_up() -> None:
    assert sum(share for share, _ in MIXTURE) == pytest.approx(1)


def test_a_tenth_of_the_photos_is_not_changed_by_a_bit(errors: np.ndarray) -> None:
    assert 0.06 < (errors == 0).mean() < 0.15  # sigma of the share: 0.012


def test_a_quarter_is_hardly_changed_and_some_are_ruined(errors: np.ndarray) -> None:
    assert 0.2 < (errors < 4).mean() < 0.45
    assert 0.25 < (errors > 20).mean() < 0.6
    assert errors.max() < 90


@pytest.mark.parametrize(("index", "lowest", "highest"), [(0, 0, 55), (3, 0, 12)])
def test_damage_is_as_strong_as_its_share_says(index: int, lowest: float, highest: float) -> None:
    from pocketprior.core.degradations import Window

    window = Window.whole(photo())
    for seed in range(100):
        damaged = MIXTURE[index][1](window, np.random.default_rng(seed))
        error = float(np.sqrt(np.mean(np.square((damaged - photo()) * 255))))
        assert lowest <= error < highest + 1
