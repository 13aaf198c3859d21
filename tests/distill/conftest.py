"""Small systems with random weights, a small pool, and stages of every method on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketprior.core.training.data.photos import CONTEXTS, Pool, TrainingData
from pocketprior.distill.distillation import DistillRun, DistillStage, method_of, open_system
from support.small_models import CONFIG, save_diffir, save_gen2res, save_small

CPU = torch.device("cpu")
QUICK = {"steps": 4, "batch": 2, "crop": 16, "save_every": 2, "warmup": 1, "precision": "fp32", "rate": 1e-3}

Build = Callable[..., DistillStage]


@pytest.fixture(scope="session")
def pool() -> Pool:
    """Two smooth photos with grain."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 256)[:, None, None] * np.ones((1, 256, 3))
    photos = [np.clip(ramp[::s] + rng.normal(0, 8, ramp.shape), 0, 255).astype(np.uint8) for s in (1, -1)]
    side = CONFIG.semantic.size
    return Pool(photos, [], rng.integers(0, 256, (2 * CONTEXTS, 3, side, side), dtype=np.uint8))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str | None]]:
    """Of each system the checkpoint, and the semantic encoder where it has one."""
    folder = tmp_path_factory.mktemp("teachers")
    model, semantic = save_small(folder)
    return {
        "dtpm": (model, str(semantic)),
        "diffir": (save_diffir(folder), None),
        "gen2res": (save_gen2res(folder), None),
    }


@pytest.fixture(scope="session")
def build(files: dict[str, tuple[Path, str | None]], pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """build(method, system, **changes of the recipe): the stage on the small pool."""

    def build(method: str, system: str = "dtpm", **changes: Any) -> DistillStage:
        chosen = method_of(method)
        recipe = replace(chosen.default, **{**QUICK, "teacher_steps": 0 if system == "diffir" else 8, **changes})
        torch.manual_seed(0)
        teacher = open_system(*files[system], recipe)
        return chosen(DistillRun(recipe, teacher, TrainingData(pool, pool), tmp_path_factory.mktemp("run"), CPU))

    return build
