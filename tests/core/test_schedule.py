from __future__ import annotations

import itertools

import pytest

from pocketprior.core import schedule


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_schedules_fall_to_pure_noise(name: str) -> None:
    bars = schedule.SCHEDULES[name]()
    assert len(bars) == schedule.STEPS
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
