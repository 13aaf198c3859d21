"""A small pool, and the stages built on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pocketprior.core.training.data.photos import CONTEXTS, Pool, TrainingData
from pocketprior.core.training.loop.recipe import Recipe
from pocketprior.core.training.loop.stage import TrainingStage
from support.small_checkpoints import CALIBRATED, MODELS, SEMANTIC, STAGES, Build, earlier


@pytest.fixture(scope="session")
def pool() -> Pool:
    """Three smooth photos with grain, their structure known; the last is a little larger."""
    rng = np.random.default_rng(0)
    photos, structures = [], []
    for side in (256, 256, 264):
        ramp = np.linspace(40, 200, side)[:, None, None] * rng.uniform(0.6, 1, (1, 1, 3)) + np.zeros((1, side, 1))
        structures.append(np.round(ramp).astype(np.uint8))
        photos.append(np.clip(np.round(ramp + rng.normal(0, 8, ramp.shape)), 0, 255).astype(np.uint8))
    contexts = rng.integers(0, 256, (3 * CONTEXTS, 3, SEMANTIC.size, SEMANTIC.size), dtype=np.uint8)
    return Pool(photos, structures, contexts)


@pytest.fixture(scope="session")
def build(pool: Pool) -> Build:
    """build(stage, body, **changes of the recipe): the stage on the small pool; `model` changes the model's fields."""

    def build(name: str, body: str = "rep", model: Mapping[str, Any] | None = None, **changes: Any) -> TrainingStage:
        config = replace(MODELS[body], **(model or {}))
        definition = STAGES[name]
        crop, rate = (32, 0.0) if body in CALIBRATED else (16, 0.1)
        if name in ("adapters", "finish"):
            changes = {"predictor_rate": rate, **changes}
        recipe: Recipe = replace(definition.recipe, **{"model": config, "crop": crop, "precision": "fp32", **changes})
        torch.manual_seed(0)
        return definition.build(recipe, earlier(config), TrainingData(pool, pool))

    return build
