from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from pocketprior.core.sampling import schedule


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_schedules_fall_to_pure_noise(name: str) -> None:
    bars = schedule.SCHEDULES[name]()
    assert len(bars) == schedule.TRAINING_STEPS
    assert bars[-1] == 0.0
    assert 0.999 < bars[0] < 1
    assert all(a > b for a, b in itertools.pairwise(bars))


def test_linear_schedule_before_rescaling_is_that_of_ddpm() -> None:
    """The rescaling is affine in sqrt(abar): ratios of differences survive, and the first value is kept."""
    import numpy as np

    plain = np.sqrt(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    ours = np.sqrt(schedule.linear())
    np.testing.assert_allclose(ours, (plain - plain[-1]) * plain[0] / (plain[0] - plain[-1]), atol=1e-12)


def test_trailing_starts_from_pure_noise_and_ends_clean() -> None:
    levels, times = schedule.trailing(4, schedule.cosine())
    assert times == [1.0, 0.75, 0.5, 0.25]
    assert levels[0] == 0.0
    assert levels[-1] == 1.0
    assert levels[2] == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 50, 1000])
def test_trailing_gives_as_many_steps_as_asked(steps: int) -> None:
    levels, times = schedule.trailing(steps, schedule.linear())
    assert len(times) == steps == len(levels) - 1
    assert all(a < b for a, b in itertools.pairwise(levels))


@pytest.mark.parametrize("steps", [0, 1001, -1])
def test_trailing_refuses_other_counts(steps: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.1000"):
        schedule.trailing(steps, schedule.linear())


def test_diffir_levels_are_those_of_the_paper() -> None:
    assert schedule.diffir() == pytest.approx([0.900, 0.635, 0.260, 0.0026], abs=5e-4)


def test_ddpm_levels_are_the_published_ones() -> None:
    """Not rescaled: abar at 100, 200, 300, 400, 600 as the literature has it, and some signal at the end."""
    bars = schedule.ddpm()
    assert [bars[t - 1] for t in (100, 200, 300, 400, 600)] == pytest.approx(
        [0.897, 0.659, 0.396, 0.195, 0.026], abs=1e-3
    )
    assert bars[0] == pytest.approx(1 - 1e-4)
    assert bars[-1] == pytest.approx(4.04e-5, rel=0.01)


def test_strided_starts_from_the_level_asked_for() -> None:
    bars = schedule.ddpm()
    levels, times = schedule.strided(4, bars, 200)
    assert times == [0.2, 0.15, 0.1, 0.05]
    assert levels == [bars[199], bars[149], bars[99], bars[49], 1.0]


def test_strided_from_the_last_level_is_trailing() -> None:
    bars = schedule.ddpm()
    assert schedule.strided(7, bars, 1000) == schedule.trailing(7, bars)


def test_quadratic_levels_are_nearer_to_one_another_at_the_clean_end() -> None:
    bars = schedule.ddpm()
    levels, times = schedule.quadratic(4, bars, 300)
    assert times == [0.3, 0.169, 0.075, 0.019]
    assert levels == [bars[299], bars[168], bars[74], bars[18], 1.0]


@pytest.mark.parametrize("steps", [1, 7, 40, 299, 300])
def test_quadratic_takes_no_level_twice(steps: int) -> None:
    levels, times = schedule.quadratic(steps, schedule.ddpm(), 300)
    assert len(times) == steps == len(levels) - 1
    assert times[0] == 0.3
    assert all(a > b for a, b in itertools.pairwise(times))
    assert all(a < b for a, b in itertools.pairwise(levels))


@pytest.mark.parametrize("levels", [schedule.strided, schedule.quadratic])
@pytest.mark.parametrize(
    ("steps", "start", "match"),
    [(0, 200, r"1\.\.200"), (201, 200, r"1\.\.200"), (1, 0, r"1\.\.1000"), (1, 1001, r"1\.\.1000")],
)
def test_what_does_not_fit_is_refused(
    levels: Callable[[int, list[float], int], object], steps: int, start: int, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        levels(steps, schedule.ddpm(), start)
