from __future__ import annotations

from pathlib import Path

import pytest

from pocketprior.core.errors import TrainingError, UsageError
from pocketprior.core.training.loop import rate_at
from pocketprior.core.training.recipe import Recipe

RECIPE = Recipe(steps=100, warmup=10, rate=1.0, final_rate=0.1)


def test_recipe_round_trips(tmp_path: Path) -> None:
    RECIPE.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == RECIPE


def test_settings_keep_their_types() -> None:
    changed = RECIPE.with_settings(["steps=7", "rate=2e-4", "precision=fp32"])
    assert (changed.steps, changed.rate, changed.precision) == (7, 2e-4, "fp32")


@pytest.mark.parametrize("setting", ["stepz=3", "steps", "=3", ""])
def test_unknown_setting_lists_the_valid_ones(setting: str) -> None:
    with pytest.raises(UsageError, match=r"one of: steps, batch"):
        RECIPE.with_settings([setting])


@pytest.mark.parametrize("setting", ["steps=many", "steps=0", "precision=fp8", "crop=-1"])
def test_bad_value_is_refused(setting: str) -> None:
    with pytest.raises(UsageError):
        RECIPE.with_settings([setting])


def test_recipe_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"steps": 3}')
    with pytest.raises(TrainingError, match="expected"):
        Recipe.load(path)


def test_rate_warms_up_and_falls_to_the_end() -> None:
    rates = [rate_at(step, RECIPE) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[99] == pytest.approx(0.1, abs=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)
