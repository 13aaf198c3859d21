"""Gradients reach exactly the parameters that a stage trains; draws depend on their generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pocketprior.core.models.dtpm import Dtpm
from pocketprior.core.training.data.photos import Pool
from pocketprior.core.training.loop.stage import TrainingStage
from support.small_checkpoints import CALIBRATED, MODELS, STAGES, Build, batch_of, randomize

BODIES = tuple(MODELS)


def reached(stage: TrainingStage, pool: Pool) -> set[str]:
    """Names of the parameters with a gradient that is not zero, all else frozen as the loop freezes it."""
    randomize(stage.model)
    stage.model.requires_grad_(False)
    for name in stage.trained:
        stage.model.get_submodule(name).requires_grad_(True)
    stage.loss(batch_of(stage, pool))["loss"].backward()
    assert all(p.grad is None for p in stage.frozen.parameters())
    return {n for n, p in stage.model.named_parameters() if p.grad is not None and p.grad.any()}


def names(stage: TrainingStage, *parts: str) -> set[str]:
    return {n for n, _ in stage.model.named_parameters() if n.startswith(parts)}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("predictor", ("",)),
        ("prior", ("",)),
        ("adapters", ("adapters", "predictor")),
        ("finish", ("adapters", "predictor")),
    ],
)
def test_gradients_reach_what_is_trained_and_nothing_else(
    name: str, parts: tuple[str, ...], body: str, build: Build, pool: Pool
) -> None:
    changes = {} if name == "predictor" else {"code_drop": 0.0}
    stage = build(name, body, **changes)
    if name in ("adapters", "finish") and body in CALIBRATED:
        parts = ("adapters",)
    assert reached(stage, pool) == names(stage, *parts)


@pytest.mark.parametrize("body", BODIES)
def test_film_layers_of_the_prior_are_trained_on_request(body: str, build: Build, pool: Pool) -> None:
    stage = build("adapters", body, film_rate=0.05, code_drop=0.0)
    films = {n for n in names(stage, "denoiser.unet") if ".film." in n}
    assert films
    learning = ("adapters",) if body in CALIBRATED else ("adapters", "predictor")
    assert reached(stage, pool) == names(stage, *learning) | films
    assert set(stage.trained.values()) == {1.0, 0.05} | (set() if body in CALIBRATED else {0.1})


@pytest.mark.parametrize("name", ["adapters", "finish"])
def test_predictor_learns_slower_than_the_adapters(name: str, build: Build) -> None:
    assert build(name, predictor_rate=0.25).trained == {"adapters": 1.0, "predictor": 0.25}


@pytest.mark.parametrize("name", STAGES)
def test_draws_come_from_the_generator_alone(name: str, build: Build, pool: Pool) -> None:
    stage = build(name)
    first, again, other = (stage.draw(pool, 16, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert not np.array_equal(first["clean"], other["clean"])
    assert first["clean"].shape == (3, 16, 16)


@pytest.mark.parametrize("name", STAGES)
def test_loss_draws_nothing(name: str, build: Build, pool: Pool) -> None:
    stage = build(name)
    batch = batch_of(stage, pool)
    state = torch.get_rng_state()
    losses = [float(stage.loss(batch)["loss"].detach()) for _ in range(2)]
    assert losses[0] == losses[1]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("body", BODIES)
def test_stage_two_begins_as_stage_one(body: str, build: Build, pool: Pool) -> None:
    """What `build` puts together from the checkpoints denoises bit for bit as the prior alone."""
    stage = build("adapters", body)
    assert isinstance(stage.model, Dtpm)
    batch = batch_of(stage, pool)
    x, base, code = batch["noise"], batch["damaged"], batch["code_noise"]
    one = stage.model.denoiser(x, base, code, batch["t"])
    assert torch.equal(stage.model.denoise(x, base, base, code, batch["t"]), one)
