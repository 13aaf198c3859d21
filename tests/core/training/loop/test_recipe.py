from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketprior.core.errors import TrainingError, UsageError
from pocketprior.core.training.loop.recipe import Recipe
from pocketprior.core.training.stages import find_stage

RECIPE = Recipe(steps=100, warmup=10, rate=1.0)


@dataclass(frozen=True)
class Part:
    """A nested group."""

    widths: tuple[int, ...] = (4, 8)
    ends: tuple[float, float] = (0.1, 1.0)
    deep: bool = False


@dataclass(frozen=True)
class Model:
    """Two levels down."""

    part: Part = field(default_factory=Part)
    name: str = "plain"
    limit: float = 0.5


@dataclass(frozen=True)
class FullRecipe(Recipe):
    """One field of each type."""

    task: str = "cleanup"
    model: Model = field(default_factory=Model)


FULL = FullRecipe(steps=3, rate=1 / 3, decay=1e-300, model=Model(Part((), (0.1 + 0.2, -0.0), True), 'a "b"\n\u00e9'))


@pytest.mark.parametrize("name", ["recipe.toml", "recipe.json"])
@pytest.mark.parametrize("recipe", [RECIPE, FULL])
def test_recipe_round_trips(recipe: Recipe, name: str, tmp_path: Path) -> None:
    recipe.save(tmp_path / name)
    assert type(recipe).load(tmp_path / name) == recipe


@settings(deadline=None)
@given(
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    widths=st.lists(st.integers(-(2**40), 2**40)),
    name=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_any_values_round_trip(
    rate: float, widths: list[int], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = replace(FULL, rate=rate, model=Model(Part(tuple(widths)), name))
    for suffix in ("toml", "json"):
        path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
        recipe.save(path)
        assert FullRecipe.load(path) == recipe


def test_other_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.toml or \.json"):
        RECIPE.save(tmp_path / "recipe.yaml")


def test_settings_reach_into_groups() -> None:
    changed = FULL.with_settings(
        [
            "model.part.widths=1,2,3",
            "model.part.deep=false",
            "model.name=x=y",
            "model.part.ends=1,2",
        ]
    )
    assert changed.model == Model(Part((1, 2, 3), (1.0, 2.0), False), "x=y")
    assert changed.with_settings(["model.limit=2"]).model.limit == 2.0
    assert FULL.with_settings(["model.part.widths="]).model.part.widths == ()


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model=3", "part, name, limit"),
        ("model.part=3", "widths, ends, deep"),
        ("model.parts.widths=3", "part, name, limit of Model"),
        ("model.part.widths=a", "a comma list of int"),
        ("model.part.ends=1,2,3", "a comma list of float, 2 of them"),
        ("model.part.deep=yes", "true or false"),
        ("steps.more=3", "no fields of its own"),
        ("steps=2.5", "a whole number"),
    ],
)
def test_bad_setting_says_what_fits(setting: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        FULL.with_settings([setting])


def test_settings_keep_their_types() -> None:
    changed = RECIPE.with_settings(["steps=7", "rate=2e-4", "precision=fp32"])
    assert (changed.steps, changed.rate, changed.precision) == (7, 2e-4, "fp32")


@pytest.mark.parametrize("setting", ["stepz=3", "steps", "=3", ""])
def test_unknown_setting_lists_the_valid_ones(setting: str) -> None:
    with pytest.raises(UsageError, match=r"one of: steps, batch"):
        RECIPE.with_settings([setting])


@pytest.mark.parametrize(
    "setting",
    [
        *("steps=many", "steps=0", "precision=fp8", "crop=-1", "rate=nan", "rate=-1e-3", "rate=0", "muon_rate=0"),
        *("clip=-1", "optimizer=sgd", "cooldown=1.1", "warmup=-5", "decay=-1", "ema=1.5", "seed=-1"),
    ],
)
def test_bad_value_is_refused(setting: str) -> None:
    with pytest.raises(UsageError):
        RECIPE.with_settings([setting])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("steps = 3", "'batch' is missing; a recipe file names every field"),
        ("steps = ", "not valid TOML"),
        ("WHOLE\nextra = 1", "extra"),
        ('WHOLE\nsteps = "3"', 'steps: given "3", expected int'),
        ("WHOLE\nsteps = 3.0", "steps: given 3.0, expected int"),
        ("WHOLE\nsteps = true", "steps: given true, expected int"),
    ],
)
def test_recipe_file_with_a_fault_is_refused(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    RECIPE.save(path)
    whole = path.read_text().replace("steps = 100\n", "" if "\nsteps" in text else "steps = 100\n")
    path.write_text(text.replace("WHOLE", whole))
    with pytest.raises(TrainingError, match=named):
        Recipe.load(path)


def test_missing_recipe_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read the recipe .*none\.toml"):
        Recipe.load(tmp_path / "none.toml")


def test_whole_number_in_a_file_may_stand_for_a_float(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    RECIPE.save(path)
    path.write_text(path.read_text().replace("rate = 1.0\n", "rate = 1\n", 1))
    assert Recipe.load(path) == RECIPE


@pytest.mark.parametrize(
    ("folder", "stage"),
    [("cleanup", "adapters"), ("predictor", "predictor"), ("prior", "prior"), ("semantic", "semantic")],
)
def test_recipes_of_the_kept_checkpoints_can_be_read(folder: str, stage: str) -> None:
    path = Path(__file__).parents[4] / "checkpoints" / folder / "recipe.toml"
    recipe = type(find_stage("dtpm", stage).load().recipe).load(path)
    last = (path.parent / "log.csv").read_text().splitlines()[-1]
    assert recipe.steps == int(last.partition(",")[0])


def test_rate_warms_up_and_falls_to_the_end() -> None:
    shares = [RECIPE.share_of_rate(step) for step in range(100)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert shares[10:] == pytest.approx([1 - i / 90 for i in range(90)])
    half = replace(RECIPE, cooldown=0.5)
    assert [half.share_of_rate(step) for step in (9, 54, 55, 99)] == pytest.approx([1, 1, 1, 1 / 45])
    assert {replace(RECIPE, cooldown=0.0).share_of_rate(step) for step in range(9, 100)} == {1.0}


def test_short_runs_have_a_rate_at_every_step() -> None:
    for steps in (1, 5, 10, 11):
        assert all(0 < replace(RECIPE, steps=steps).share_of_rate(step) <= 1 for step in range(steps))


def test_crop_that_the_model_cannot_take_is_refused() -> None:
    replace(RECIPE, crop=96).check_crop(32)
    with pytest.raises(UsageError, match=r"crop is 33, this model needs a multiple of 2; give --set crop="):
        replace(RECIPE, crop=33).check_crop(2)
