"""Estimators of a normed prior start with vectors that tell photos apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pocketprior.core.models.diffir import CpenS1
from pocketprior.core.training.data.photos import Pool
from pocketprior.core.training.diffir.diffir_stage import standardise, starting_pairs
from pocketprior.core.training.diffir.phases import PRETRAIN_STAGE, PretrainStage, WarmupStage
from pocketprior.core.training.loop.stage import TrainingStage

from .conftest import MODEL

NORMED = replace(MODEL, prior_norm=True)
SMALL = replace(PRETRAIN_STAGE.recipe, model=NORMED, crop=32)


def between(vectors: Tensor) -> float:
    """The share of the energy of vectors (N, K) that differs between them."""
    return float((vectors - vectors.mean(0)).square().mean() / vectors.square().mean())


def test_starting_pairs_are_always_the_same(pool: Pool) -> None:
    first, again = starting_pairs(pool, SMALL), starting_pairs(pool, SMALL)
    assert first[0].shape == (128, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_every_layer_starts_with_mean_0_and_variance_1(pool: Pool) -> None:
    torch.manual_seed(0)
    network, pairs = CpenS1(NORMED), starting_pairs(pool, SMALL)
    standardise(network, *pairs)
    seen: list[Tensor] = []
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(lambda _layer, _given, output: seen.append(output))
    with torch.no_grad():
        network(*pairs)
    assert len(seen) == len(layers) == 8
    for output in seen:
        flat = output.transpose(0, 1).flatten(1)
        torch.testing.assert_close(flat.mean(1), torch.zeros(len(flat)), atol=1e-4, rtol=0)
        torch.testing.assert_close(flat.std(1), torch.ones(len(flat)), atol=1e-3, rtol=0)


def test_flat_photos_do_not_blow_it_up() -> None:
    network = CpenS1(NORMED)
    standardise(network, torch.full((4, 3, 16, 16), 0.5), torch.full((4, 3, 16, 16), 0.5))
    assert all(p.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", ["pretrain", "warmup"])
def test_stages_start_with_priors_that_tell_photos_apart(
    name: str, build: Callable[..., TrainingStage], pool: Pool
) -> None:
    found = {}
    for norm in (True, False):
        stage = build(name, model=replace(MODEL, prior_norm=norm))
        image, clean = starting_pairs(pool, stage.recipe)
        with torch.no_grad():
            if isinstance(stage, PretrainStage):
                found[norm] = between(stage.teacher.cpen(image, clean))
            else:
                assert isinstance(stage, WarmupStage)
                found[norm] = between(stage.diffir.condition(image))
    assert found[True] > 0.8
    assert found[False] < 0.02
