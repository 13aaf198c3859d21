from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.models.checkpoints import Checkpoint, from_dict
from pocketprior.core.models.dtpm import Dtpm, DtpmConfig, Predictor
from pocketprior.core.models.lora import is_factor
from pocketprior.core.training.data.photos import Pool, TrainingData
from pocketprior.core.training.dtpm.task import DELTA_STAGE
from pocketprior.core.training.loop.stage import TrainingStage
from support.small_checkpoints import MODELS, Build, batch_of, checkpoint, earlier, randomize

MODEL = MODELS["rep"]
OTHER = replace(MODEL, predictor=replace(MODEL.predictor, lora=4))
Delta = Callable[..., TrainingStage]


@pytest.fixture
def fresh(pool: Pool) -> Delta:
    """fresh(**changes of the recipe): the stage beside the small DTPM of another task."""

    def fresh(before: Mapping[str, Checkpoint] | None = None, **changes: Any) -> TrainingStage:
        settings = {"model": MODEL, "task": "rain", "crop": 16, "precision": "fp32", **changes}
        torch.manual_seed(0)
        return DELTA_STAGE.build(
            replace(DELTA_STAGE.recipe, **settings), before or earlier(MODEL), TrainingData(pool, pool)
        )

    return fresh


def test_it_begins_as_the_predictor_that_it_shares(fresh: Delta, pool: Pool) -> None:
    stage, base = fresh(), Predictor(MODEL.predictor)
    earlier(MODEL)["dtpm"].fill(base, "predictor")
    image = batch_of(stage, pool)["damaged"]
    assert torch.equal(stage.model(image), base(image))
    assert stage.config == OTHER
    assert stage.facts() == {"task": "rain"}


def test_only_factors_learn(fresh: Delta, pool: Pool) -> None:
    stage = fresh()
    randomize(stage.model)
    stage.model.requires_grad_(False)
    for name in stage.trained:
        stage.model.get_submodule(name).requires_grad_(True)
    stage.loss(batch_of(stage, pool))["loss"].backward()
    learning = {name for name, p in stage.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning == {name for name, _ in stage.model.named_parameters() if is_factor(name)}


def test_the_rank_is_that_of_the_recipe(fresh: Delta) -> None:
    assert {t.shape[0] for name, t in fresh(rank=2).model.named_parameters() if name.endswith("down")} == {2}
    with pytest.raises(UsageError, match="'rank' must be at least 1"):
        fresh(rank=0)


def test_what_it_cannot_start_from(fresh: Delta) -> None:
    with pytest.raises(UsageError, match="was trained for 'cleanup' itself; give another --task"):
        fresh(task="cleanup")
    wider = replace(MODEL, predictor=replace(MODEL.predictor, widths=(8, 12)))
    with pytest.raises(UsageError, match=r"--set model\.predictor\.widths=8,8"):
        fresh(model=wider)
    shared = {"dtpm": checkpoint("dtpm", OTHER, Dtpm(OTHER), task="cleanup")}
    with pytest.raises(UsageError, match="shares the predictor of another task"):
        fresh(shared, model=OTHER)


def test_another_body_cannot_share() -> None:
    with pytest.raises(UsageError, match="the body 'naf'; only one with the body 'rep'"):
        replace(MODELS["naf"].predictor, lora=4)
    with pytest.raises(UsageError, match="got -1"):
        replace(MODEL.predictor, lora=-1)


@pytest.mark.parametrize("name", ["adapters", "finish"])
def test_adapters_leave_the_shared_weights_alone(name: str, build: Build) -> None:
    stage = build(name, model={"predictor": OTHER.predictor})
    parts = {part for part in stage.trained if part.startswith("predictor")}
    assert parts
    assert all(part.endswith(".factors") and stage.trained[part] == 0.1 for part in parts)


def test_factors_need_a_predictor_beside_them(build: Build) -> None:
    with pytest.raises(UsageError, match="train dtpm delta --dtpm FILE"):
        build("predictor", model={"predictor": OTHER.predictor})


def test_old_checkpoints_have_a_predictor_of_their_own() -> None:
    config = earlier(MODEL)["dtpm"].config
    del config["predictor"]["lora"]
    assert from_dict(DtpmConfig, config) == MODEL
