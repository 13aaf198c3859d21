"""A cooled copy goes on where the run is, at a falling rate, and leaves the run alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from toy_training import RECIPE, ToyStage, record, toy_data, train_toy

from pocketprior.core.errors import TrainingError, UsageError
from pocketprior.core.training.cooling import cool
from pocketprior.core.training.loop import Step
from pocketprior.core.training.recipe import Recipe

CONSTANT = replace(RECIPE, steps=6, cooldown=0.0, save_every=2, optimizer="muon")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    train_toy(tmp_path / "run", CONSTANT)
    return tmp_path / "run"


def cool_toy(run: Path, out: Path, steps: int, recipe: Recipe = CONSTANT, **options: Any) -> list[Step]:
    data = toy_data()
    return list(cool(ToyStage(data, **options), data, recipe, run, out, steps, workers=0))


def test_rate_falls_to_zero_and_the_run_is_untouched(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    steps = cool_toy(run, tmp_path / "cooled", 4)
    assert [step["step"] for step in steps] == [8, 10]
    assert [step["rate"] / CONSTANT.rate for step in steps] == pytest.approx([3 / 4, 1 / 4])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    cooled = Recipe.load(tmp_path / "cooled" / "recipe.toml")
    assert [cooled.share_of_rate(step) for step in range(6, 10)] == pytest.approx([1, 3 / 4, 1 / 2, 1 / 4])


def test_samples_go_on_where_the_run_is(run: Path, tmp_path: Path) -> None:
    """The copy sees what the run would have seen next."""

    def drawn(stage: ToyStage) -> list[Any]:
        seen: list[Any] = []
        draw = stage.draw
        stage.draw = lambda *args: seen.append(draw(*args)["noise"]) or {**draw(*args), "noise": seen[-1]}  # type: ignore[method-assign,func-returns-value]
        return seen

    data = toy_data()
    cooled, further = ToyStage(data), ToyStage(data)
    ours, theirs = drawn(cooled), drawn(further)
    list(cool(cooled, data, CONSTANT, run, tmp_path / "cooled", 3, workers=0))
    from pocketprior.core.training.loop import train

    list(train(further, data, replace(CONSTANT, steps=9), run, workers=0))
    assert len(ours) == len(theirs) == 3 * CONSTANT.batch
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_stopped_copy_goes_on_even_if_the_run_has_too(run: Path, tmp_path: Path) -> None:
    cool_toy(run, tmp_path / "whole", 4)
    with pytest.raises(KeyboardInterrupt):
        cool_toy(run, tmp_path / "cooled", 4, stop=1)
    longer = replace(CONSTANT, steps=10)
    train_toy(run, longer)
    cool_toy(run, tmp_path / "cooled", 4, longer)
    whole, cooled = record(tmp_path / "whole"), record(tmp_path / "cooled")
    assert [name for name in whole if whole[name] != cooled[name]] == []


def test_finished_copy_gives_way_to_a_new_one(run: Path, tmp_path: Path) -> None:
    cool_toy(run, tmp_path / "cooled", 2)
    train_toy(run, replace(CONSTANT, steps=8))
    steps = cool_toy(run, tmp_path / "cooled", 4, replace(CONSTANT, steps=8))
    assert [step["step"] for step in steps] == [10, 12]
    assert [row["step"] for row in record(tmp_path / "cooled")["log"]] == ["10", "12"]


def test_what_cannot_be_cooled_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 step, got 0"):
        cool_toy(run, tmp_path / "cooled", 0)
    train_toy(tmp_path / "ends")
    with pytest.raises(UsageError, match="cool-down itself"):
        cool_toy(tmp_path / "ends", tmp_path / "cooled", 2, RECIPE)
    early = replace(CONSTANT, steps=2)
    train_toy(tmp_path / "early", early)
    with pytest.raises(UsageError, match=r"has done 2 steps .* until step 3"):
        cool_toy(tmp_path / "early", tmp_path / "cooled", 2, early)
    with pytest.raises(TrainingError, match="no saved state"):
        cool_toy(tmp_path / "none", tmp_path / "cooled", 2)
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "photo.jpg").touch()
    with pytest.raises(TrainingError, match="not a cooled copy"):
        cool_toy(run, tmp_path / "album", 2)
    assert not (tmp_path / "cooled").exists()
    safetensors.torch.load_file(run / "resume.safetensors")
