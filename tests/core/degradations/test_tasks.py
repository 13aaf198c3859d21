"""What every task keeps: seeds, size, range, levels; and that it does damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketprior.core.degradations import SHRINKS, TASKS
from pocketprior.core.degradations.cleanup import mixed_v1
from pocketprior.core.degradations.filters import srgb_to_linear

NAMES = (
    *(
        "cleanup",
        "mixed-v1",
        "noise",
        "realnoise",
        "jpeg",
        "sr2",
        "sr4",
        "realsr2",
        "realsr4",
        "motionblur",
        "defocus",
        "rain",
    ),
    *("rainhaze", "raindrop", "snow", "haze", "lowlight", "oldphoto"),
)
DRAWN_AFTER_MIXED_V1 = [628458, 144159, 674621, 728905, 376486, 491775]  # the next integer of each generator
DETERMINED = {"sr2", "sr4"}  # nothing is drawn
HARMLESS = {"cleanup"}  # at times; tests/core/degradations/test_cleanup.py says how often


def photo(height: int = 64, width: int = 48) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [0.5 + 0.4 * np.sin(y / 5 + x / 7 + phase) * np.cos(x / 1.5) for phase in (0, 1, 2)]
    return np.stack(waves, axis=2).astype(np.float32)


def test_tasks_are_all_there() -> None:
    assert set(NAMES) <= set(TASKS)
    assert set(SHRINKS) < set(TASKS)


@pytest.mark.parametrize("task", TASKS)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_task_is_seeded_and_keeps_range_size_and_its_argument(task: str, seed: int, height: int, width: int) -> None:
    clean = photo(height, width)
    first, second = (TASKS[task](clean, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(clean, photo(height, width))
    assert first.shape == clean.shape
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_stay_in_range(task: str, level: float) -> None:
    for seed in range(5):
        result = TASKS[task](np.full((33, 20, 3), level, np.float32), np.random.default_rng(seed))
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1


@pytest.mark.parametrize("task", TASKS)
def test_task_leaves_the_levels_of_a_file(task: str) -> None:
    levels = TASKS[task](photo(), np.random.default_rng(3)) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)


@pytest.mark.parametrize("task", sorted(set(TASKS) - DETERMINED - HARMLESS))
def test_every_seed_does_other_damage(task: str) -> None:
    results = [TASKS[task](photo(), np.random.default_rng(seed)) for seed in range(8)]
    assert len({result.tobytes() for result in results}) == 8


@pytest.mark.parametrize("task", sorted(set(TASKS) - HARMLESS))
def test_task_does_damage(task: str) -> None:
    errors = [np.abs(TASKS[task](photo(), np.random.default_rng(seed)) - photo()).mean() * 255 for seed in range(8)]
    assert min(errors) > 0.3
    assert max(errors) > 2


@pytest.mark.parametrize("name", SHRINKS)
@pytest.mark.parametrize("size", [(64, 48), (13, 7), (1, 1)])
def test_shrinks_give_the_small_image(name: str, size: tuple[int, int]) -> None:
    factor = int(name[-1])
    first, second = (SHRINKS[name](photo(*size), np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (-(-size[0] // factor), -(-size[1] // factor), 3)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1
    np.testing.assert_array_equal(first, second)


def test_low_light_keeps_2_to_30_percent() -> None:
    grey = np.full((64, 64, 3), 0.8, np.float32)
    shares = [
        srgb_to_linear(TASKS["lowlight"](grey, np.random.default_rng(seed))).mean() / srgb_to_linear(grey).mean()
        for seed in range(40)
    ]
    assert 0.015 < min(shares) < 0.05
    assert 0.15 < max(shares) < 0.31


def test_weather_adds_light_and_low_light_takes_it() -> None:
    dark = np.full((96, 96, 3), 0.2, np.float32)
    for task in ("rain", "rainhaze", "snow", "haze"):
        results = [TASKS[task](dark, np.random.default_rng(seed)) for seed in range(5)]
        assert min(result.mean() for result in results) > 0.2, task
        assert min(result.min() for result in results) > 0.19, task


def test_motion_blur_keeps_the_mean_of_light() -> None:
    for seed in range(5):
        blurred = TASKS["motionblur"](photo(96, 96), np.random.default_rng(seed))
        assert srgb_to_linear(blurred).mean() == pytest.approx(srgb_to_linear(photo(96, 96)).mean(), rel=0.1)


def test_mixed_v1_draws_what_it_always_drew() -> None:
    """Packs and results were made with it: neither order nor number of the draws may change."""
    after = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mixed_v1(photo(8, 8), rng)
        after.append(int(rng.integers(10**6)))
    assert after == DRAWN_AFTER_MIXED_V1
