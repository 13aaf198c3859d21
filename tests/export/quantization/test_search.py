"""The search keeps the budget, says where it cannot, and comes to the same plan after a kill."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pocketprior.core.errors import UnknownNameError
from pocketprior.export.limits import MARGIN_DB
from pocketprior.export.quantization import search as module
from pocketprior.export.quantization.api import QuantizeOptions
from pocketprior.export.quantization.pack_quality import FloatResults, errors
from pocketprior.export.quantization.plan import check_plan
from pocketprior.export.quantization.search import Measurements, fingerprint, search
from pocketprior.export.targets.calibration import FloatPack


@pytest.fixture
def memory(tmp_path: Path) -> Measurements:
    return Measurements(tmp_path / "memory", "x")


@pytest.mark.parametrize("objective", ["size", "speed"])
def test_the_budget_is_kept(opened: FloatPack, truth: FloatResults, memory: Measurements, objective: str) -> None:
    plan, worst_db = search(opened, truth, truth, 45, objective, memory)
    assert plan is not None
    assert worst_db >= 45 + MARGIN_DB
    check_plan(plan, opened.layers)
    assert set(plan.levels.values()) & ({"w4", "w8"} if objective == "size" else {"int8"})


def test_a_smaller_budget_gives_no_larger_plan(opened: FloatPack, truth: FloatResults, memory: Measurements) -> None:
    costs = []
    for budget in (35, 50, 70):
        plan, _ = search(opened, truth, truth, budget, "size", memory)
        assert plan is not None
        choices = module.sensitivity(opened, truth, "size", memory)
        costs.append(sum(choices[layer][precision].cost for layer, precision in plan.levels.items()))
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_where_there_is_no_plan_it_says_what_the_best_is(
    opened: FloatPack, truth: FloatResults, memory: Measurements
) -> None:
    plan, worst_db = search(opened, truth, truth, 300, "size", memory)
    assert plan is None
    assert 50 < worst_db < 300


def test_the_limit_goes_towards_the_loosest_that_keeps_the_budget() -> None:
    kept = 0.3  # the loosest
    limit, best, failed = 1.0, None, math.inf
    for _ in range(8):
        if limit <= kept:
            best = limit
        else:
            failed = limit
        limit = module._next_limit(limit, kept / limit, best, failed)
    assert best is not None
    assert 0.9 * kept < best <= kept


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("after", [1, 5])
def test_a_search_that_was_killed_comes_to_the_same_plan(
    opened: FloatPack, truth: FloatResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole, _ = search(opened, truth, truth, 45, "size", Measurements(tmp_path / "whole", "x"))
    measured = []

    def counted(*arguments: object, **options: object) -> list[float]:
        if len(measured) == after:
            raise KilledError
        measured.append(1)
        return errors(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module, "errors", counted)
        with pytest.raises(KilledError):
            search(opened, truth, truth, 45, "size", Measurements(tmp_path / "killed", "x"))
    resumed = Measurements(tmp_path / "killed", "x")
    assert len(resumed.known) == after
    again, _ = search(opened, truth, truth, 45, "size", resumed)
    assert again is not None
    assert whole is not None
    assert again.hash == whole.hash
    assert (tmp_path / "killed").read_text() == (tmp_path / "whole").read_text()


def test_an_unknown_objective() -> None:
    with pytest.raises(UnknownNameError, match="unknown objective 'beauty'; choose one of: size, speed"):
        QuantizeOptions(objective="beauty")


def test_other_photos_are_another_search(opened: FloatPack, truth: FloatResults) -> None:
    fewer = FloatResults(truth.photos[:1], truth.restored[:1])
    assert fingerprint(opened, truth) != fingerprint(opened, fewer)
