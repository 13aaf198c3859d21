"""A cooled copy goes on where the run is, at a falling rate, and leaves the run alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketprior.core.errors import TrainingError, UsageError
from pocketprior.core.training.data.photos import Pool
from pocketprior.core.training.loop.loop import SavedStep, train
from pocketprior.core.training.loop.recipe import Recipe
from pocketprior.core.training.loop.run_folder import cooled_copies
from pocketprior.core.training.loop.stage import Arrays
from pocketprior.core.training.runs import cool
from support.toy_training import RECIPE, ToyStage, record, toy_data, train_toy

CONSTANT = replace(RECIPE, steps=6, cooldown=0.0, save_every=2, optimizer="muon")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    train_toy(tmp_path / "run", CONSTANT)
    return tmp_path / "run"


def cool_toy(run: Path, steps: int, recipe: Recipe = CONSTANT, **options: Any) -> list[SavedStep]:
    data = toy_data()
    return list(cool(ToyStage(data, **options), data, recipe, run, steps, workers=0))


class Watched(ToyStage):
    """Keeps the noise that it has drawn."""

    def __init__(self) -> None:
        super().__init__(toy_data())
        self.seen: list[NDArray[Any]] = []

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        sample = super().draw(pool, crop, rng)
        self.seen.append(sample["noise"])
        return sample


def test_rate_falls_to_zero_and_the_run_is_untouched(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    steps = cool_toy(run, 4)
    assert [step.step for step in steps] == [8, 10]
    assert [step.figures["rate"] / CONSTANT.rate for step in steps] == pytest.approx([3 / 4, 1 / 4])
    assert {path: path.read_bytes() for path in before} == before
    cooled = Recipe.load(run / "cooled-00000006" / "recipe.toml")
    assert [cooled.share_of_rate(step) for step in range(6, 10)] == pytest.approx([1, 3 / 4, 1 / 2, 1 / 4])
    assert cooled_copies(run) == [run / "cooled-00000006"]


def test_copy_sees_what_the_run_would_have_seen_next(run: Path) -> None:
    data = toy_data()
    cooled, further = Watched(), Watched()
    list(cool(cooled, data, CONSTANT, run, 3, workers=0))
    list(train(further, data, replace(CONSTANT, steps=9), run, workers=0))
    assert len(cooled.seen) == len(further.seen) == 3 * CONSTANT.batch
    assert all(np.array_equal(a, b) for a, b in zip(cooled.seen, further.seen, strict=True))


def test_stopped_copy_goes_on_to_the_same_bits(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    cool_toy(tmp_path / "other", 4)
    with pytest.raises(KeyboardInterrupt):
        cool_toy(run, 4, stop=1)
    assert cooled_copies(run) == []
    cool_toy(run, 4)
    whole, ours = record(tmp_path / "other" / "cooled-00000006"), record(run / "cooled-00000006")
    assert [name for name in whole if whole[name] != ours[name]] == []


def test_copy_that_was_killed_while_it_was_made_is_made_again(run: Path) -> None:
    (run / "cooled-00000006").mkdir()
    (run / "cooled-00000006" / "resume.safetensors").write_bytes(b"half")
    assert [step.step for step in cool_toy(run, 2)] == [8]


def test_longer_run_has_another_copy(run: Path) -> None:
    cool_toy(run, 2)
    assert cool_toy(run, 2) == []  # it is there
    longer = replace(CONSTANT, steps=8)
    train_toy(run, longer)
    assert [step.step for step in cool_toy(run, 4, longer)] == [10, 12]
    assert cooled_copies(run) == [run / "cooled-00000006", run / "cooled-00000008"]


def test_what_cannot_be_cooled_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 step to cool for, got 0"):
        cool_toy(run, 0)
    train_toy(tmp_path / "ends")
    with pytest.raises(UsageError, match="cool-down of its own"):
        cool_toy(tmp_path / "ends", 2, RECIPE)
    early = replace(CONSTANT, steps=2)
    train_toy(tmp_path / "early", early)
    with pytest.raises(UsageError, match=r"is at step 2 .* until step 3"):
        cool_toy(tmp_path / "early", 2, early)
    with pytest.raises(TrainingError, match="no saved state"):
        cool_toy(tmp_path / "none", 2)
    assert not list(tmp_path.rglob("cooled-*"))
