from __future__ import annotations

from typing import Any

import pytest

from pocketprior.core.errors import CheckpointError, UsageError
from pocketprior.core.sampling.schedule import cosine, trailing
from pocketprior.core.sampling.steps import Steps, own_steps, sampled_deviation, thinned

FIFTY = Steps.of(*trailing(50, cosine()))


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
