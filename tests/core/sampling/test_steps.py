from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from pocketprior.core.errors import CheckpointError, UsageError
from pocketprior.core.sampling.schedule import cosine, ddpm, quadratic, trailing
from pocketprior.core.sampling.steps import Steps, enter, own_steps, sampled_deviation, thinned, unclipped

FIFTY = Steps.of(*trailing(50, cosine()))
ALPHA_BARS = ddpm()
LEVELS, TIMES = quadratic(8, ALPHA_BARS, 300)


def test_a_student_passes_levels_of_its_teacher() -> None:
    four = thinned(FIFTY, 4)
    assert four.times == tuple(FIFTY.times[i] for i in (0, 12, 25, 38))
    assert four.levels == (*(FIFTY.levels[i] for i in (0, 12, 25, 38)), 1.0)
    assert thinned(FIFTY, 50) == FIFTY
    assert thinned(thinned(FIFTY, 4), 1) == thinned(FIFTY, 1)


@pytest.mark.parametrize("count", [0, 51])
def test_more_steps_than_the_teacher_has_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=r"of a chain of 50; choose 1 \.\. 50"):
        thinned(FIFTY, count)


def test_steps_are_read_from_facts() -> None:
    assert own_steps({"task": "cleanup"}) is None
    assert own_steps({"levels": [0.0, 0.5, 1], "times": [1, 0.5]}) == Steps((0.0, 0.5, 1.0), (1.0, 0.5))


@pytest.mark.parametrize(
    "facts",
    [
        {"levels": [0.0, 1.0]},
        {"levels": "no", "times": [1.0]},
        {"levels": [0.5, 0.2, 1.0], "times": [1.0, 0.5]},
        {"levels": [0.0, 1.0], "times": [1.0, 0.5]},
        {"levels": [0.0, 0.5], "times": [1.0]},
        {"levels": [1.0], "times": []},
    ],
)
def test_steps_that_no_sampler_could_take_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="train it again"):
        own_steps(facts)


def test_deviation_is_interpolated_between_numbers_of_steps() -> None:
    facts = {"deviations": {"1": 0.25, "4": 0.5, "50": 1.0}}
    assert sampled_deviation({}, 4) == 1
    assert [sampled_deviation(facts, count) for count in (1, 4, 50, 200)] == [0.25, 0.5, 1.0, 1.0]
    assert sampled_deviation(facts, 2) == pytest.approx(0.375)


def sigma_of(level: float) -> float:
    return math.sqrt((1 - level) / level)


@pytest.mark.parametrize("count", [3, 57, 115, 299])
def test_the_start_is_the_level_of_the_photo_s_own_noise(count: int) -> None:
    """Without added noise; the time is that of this level, as nearly as the chain tells it."""
    entry = enter(LEVELS, TIMES, 1.0, sigma_of(ALPHA_BARS[count - 1]))
    assert entry.levels[0] == pytest.approx(ALPHA_BARS[count - 1], rel=1e-9)
    assert (entry.added, entry.exact) == (0, True)
    assert entry.times[0] == pytest.approx(count / 1000, rel=0.01, abs=7e-4)
    assert entry.levels[1:] == tuple(level for level in LEVELS if level > ALPHA_BARS[count - 1])
    assert entry.times[1:] == tuple(TIMES[len(TIMES) - len(entry.times) + 1 :])


def test_a_level_of_the_chain_has_its_time() -> None:
    for level, time in zip(LEVELS, TIMES, strict=False):
        entry = enter(LEVELS, TIMES, level, 0.0)
        assert (entry.levels[0], entry.times[0]) == (level, pytest.approx(time))


def test_a_photo_without_noise_takes_no_step() -> None:
    entry = enter(LEVELS, TIMES, 1.0, 0.0)
    assert (entry.levels, entry.times, entry.added) == ((1.0,), (), 0)


def test_only_missing_noise_is_added() -> None:
    """Its own variance, scaled as the photo is, and what is added are that of the level."""
    level, sigma = LEVELS[2], 0.2
    entry = enter(LEVELS, TIMES, level, sigma)
    assert entry.levels[0] == level
    assert entry.added**2 + level * sigma**2 == pytest.approx(1 - level)
    assert not entry.exact
    assert entry.topped_up == pytest.approx(entry.added / math.sqrt(1 - level))


def test_a_noisier_photo_than_asked_for_enters_at_its_own_level() -> None:
    sigma = 1.1 * sigma_of(LEVELS[2])
    entry = enter(LEVELS, TIMES, LEVELS[2], sigma)
    assert entry.levels[0] == pytest.approx(1 / (1 + sigma**2))
    assert entry.exact


def test_a_noisier_photo_than_all_levels_enters_at_the_first() -> None:
    entry = enter(LEVELS, TIMES, 1.0, 2 * sigma_of(LEVELS[0]))
    assert (entry.levels, entry.added, entry.exact) == (tuple(LEVELS), 0, False)


def test_without_a_start_level_all_noise_is_added() -> None:
    entry = enter(LEVELS, TIMES, None, 0.3)
    assert entry.added == math.sqrt(1 - LEVELS[0])
    assert entry.topped_up == 1


@pytest.mark.parametrize("clean", [-1.0, -0.9, -0.5, 0.6, 1.0])
def test_clipped_values_are_expected_where_they_were(clean: float) -> None:
    """The mean of clipped noise is off by up to 0.4 sigma; replaced, it is that of the noise within 2 % of sigma."""
    sigma = 0.4
    before = clean + sigma * np.random.default_rng(0).standard_normal(400_000)
    photo = before.clip(-1, 1)
    after = unclipped(photo, np.full_like(photo, clean), sigma)
    assert abs(after.mean() - clean) < 0.02 * sigma
    inside = np.abs(before) < 1
    assert np.array_equal(after[inside], before[inside])
    assert np.abs(photo.mean() - clean) > 3 * np.abs(after.mean() - clean)


def test_arrays_and_tensors_are_alike() -> None:
    rng = np.random.default_rng(1)
    photo, clean = (rng.uniform(-1.2, 1.2, (1, 3, 4, 5)).clip(-1, 1).astype(np.float32) for _ in range(2))
    expected = unclipped(photo, clean, 0.2)
    found = unclipped(torch.from_numpy(photo), torch.from_numpy(clean), 0.2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
    assert np.array_equal(unclipped(photo, clean, 0.0), photo)
