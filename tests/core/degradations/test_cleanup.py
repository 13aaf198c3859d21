"""The mixture of `cleanup`: how often what, and that good photos stay as they are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pocketprior.core.degradations import TASKS, Window, cleanup
from pocketprior.core.degradations.cleanup import MIXTURE

WHITE, JPEG, NOTHING, SLIGHT, COMBINED = range(5)
DRAWS = 4000


def photo(side: int = 48) -> np.ndarray:
    """8-bit levels, as of a file."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    waves = [0.5 + 0.3 * np.sin(y / 5 + x / 7 + phase) * np.cos(x / 3) for phase in (0, 1, 2)]
    return np.round(np.stack(waves, axis=2) * 255).astype(np.uint8)


def window() -> Window:
    return Window.whole(photo())


def errors(kind: int, count: int) -> list[np.ndarray]:
    """What draws of one kind of damage add to the photo, in grey levels."""
    clean = window().pixels()
    return [255 * (MIXTURE[kind][1](window(), np.random.default_rng(seed)) - clean) for seed in range(count)]


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def test_kinds_are_drawn_as_often_as_the_mixture_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """4000 draws: a share is known to 0.008."""
    counts = Counter[int]()

    def count(kind: int):
        return lambda *_: counts.update([kind]) or window().pixels()

    noted = tuple((share, count(kind)) for kind, (share, _) in enumerate(MIXTURE))
    monkeypatch.setattr(cleanup, "MIXTURE", noted)
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        cleanup.cleanup(window(), rng)
    for kind, (share, _) in enumerate(MIXTURE):
        assert counts[kind] / DRAWS == pytest.approx(share, abs=0.03)
    assert sum(share for share, _ in MIXTURE) == pytest.approx(1)
    assert 0.45 <= MIXTURE[WHITE][0] + MIXTURE[JPEG][0] <= 0.5


def test_a_tenth_of_the_photos_is_not_changed_by_a_bit() -> None:
    draws = (TASKS["cleanup"].damage(window(), np.random.default_rng(seed)) for seed in range(400))
    same = np.mean([np.array_equal(damaged, window().pixels()) for damaged in draws])
    assert 0.06 < same < 0.16  # sigma 0.015
    assert all(rms(error) == 0 for error in errors(NOTHING, 5))


def test_white_noise_is_as_strong_as_in_the_benchmarks() -> None:
    strengths = sorted(rms(error) for error in errors(WHITE, 200))
    assert strengths[0] < 2
    assert 48 < strengths[-1] < 57
    assert 23 < np.median(strengths) < 32


def test_hardly_damaged_photos_are_good() -> None:
    draws = errors(SLIGHT, 150)
    assert max(rms(error) for error in draws) < 7
    assert np.median([rms(error) for error in draws]) < 2.5
    assert np.mean([rms(error) > 0 for error in draws]) > 0.75  # of a smooth image, the weakest leave all levels


def test_noise_of_combinations_is_correlated() -> None:
    """Neighbours of the error correlate in most combinations, and hardly ever in white noise."""

    def correlation(error: np.ndarray) -> float:
        return float(np.corrcoef(error[:, :-1].ravel(), error[:, 1:].ravel())[0, 1])

    combined = [correlation(error) for error in errors(COMBINED, 120) if rms(error) > 3]
    white = [correlation(error) for error in errors(WHITE, 60) if rms(error) > 3]
    assert np.mean(np.abs(combined) > 0.15) > 0.5
    assert np.mean(np.abs(white) > 0.15) < 0.02


def test_damage_of_a_small_photo() -> None:
    tiny = Window.whole(np.full((3, 2, 3), 90, np.uint8))
    for seed in range(60):
        assert TASKS["cleanup"].damage(tiny, np.random.default_rng(seed)).shape == (3, 2, 3)
