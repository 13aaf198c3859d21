"""A small pool, and the stages of a tiny DiffIR built on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pocketprior.core.models.checkpoints import Checkpoint
from pocketprior.core.models.diffir import CpenConfig, Diffir, DiffirConfig, Teacher
from pocketprior.core.models.dirformer import DirformerConfig
from pocketprior.core.training.data.photos import Pool, TrainingData
from pocketprior.core.training.loop.stage import TrainingStage
from pocketprior.core.training.stages import SYSTEMS
from support.small_checkpoints import randomize

MODEL = DiffirConfig(
    ipr=8,
    cpen=CpenConfig(width=4, blocks=1),
    dirformer=DirformerConfig(width=8, blocks=(1, 1), heads=(1, 2), refinement=1, narrow=True),
)
STAGES = SYSTEMS["diffir"]


def _checkpoint(kind: str, module: nn.Module, config: DiffirConfig) -> Checkpoint:
    randomize(module)
    return Checkpoint(kind, asdict(config), module.state_dict())


def earlier(config: DiffirConfig) -> dict[str, Checkpoint]:
    """What the stages start from."""
    return {
        "diffir-pretrain": _checkpoint("diffir-pretrain", Teacher(config), config),
        "diffir-warmup": _checkpoint("diffir-warmup", Diffir(config), config),
        "diffir": _checkpoint("diffir", Diffir(config), config),
    }


@pytest.fixture(scope="session")
def pool() -> Pool:
    """Two photos of grain on a ramp."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 256)[:, None, None] + rng.normal(0, 20, (2, 256, 256, 3))
    return Pool(list(np.clip(np.round(ramp), 0, 255).astype(np.uint8)), [], np.empty((16, 3, 0, 0), np.uint8))


@pytest.fixture(scope="session")
def build(pool: Pool) -> Callable[..., TrainingStage]:
    """build(stage, before=..., **changes of the recipe)."""

    def build(name: str, before: DiffirConfig | None = None, **changes: Any) -> TrainingStage:
        definition = STAGES[name].load()
        recipe = replace(definition.recipe, **{"model": MODEL, "crop": 16, "precision": "fp32", **changes})
        torch.manual_seed(0)
        given = earlier(before or recipe.model)
        return definition.build(recipe, {kind: given[kind] for kind in STAGES[name].earlier}, TrainingData(pool, pool))

    return build
