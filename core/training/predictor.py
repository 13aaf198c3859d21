"""Stage II, first part: the initial predictor E alone, on pairs made by a task's degradation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ..degradations import TASKS, Picture, gaussian_noise, jpeg, quantize
from ..models.dtpm import DtpmConfig, Predictor
from .loop import Arrays
from .photos import Pool
from .recipe import Recipe

__all__ = ["RECIPE", "PredictorStage", "planar", "psnr_loss", "val_pairs"]

RECIPE = Recipe(steps=60_000, batch=32, rate=1.5e-3, final_rate=1e-6)


def psnr_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Minus the mean PSNR of the batch in dB (Chen et al., NAFNet, ECCV 2022): every photo counts alike.

    restored, clean: (N, 3, H, W) in [0, 1].
    """
    errors = (restored.float() - clean).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(errors + 1e-6).mean()


def planar(pictures: list[Picture]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Stack (H, W, 3) pictures as (N, 3, H, W)."""
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2), dtype=np.float32)


def val_pairs(pool: Pool, size: int = 256) -> dict[str, tuple[Tensor, Tensor]]:
    """Damaged and clean centre crops, (N, 3, size, size), of held-back photos, for a few fixed damages."""
    crops = []
    for photo in pool.photos:
        y, x = ((side - size) // 2 for side in photo.shape[:2])
        crops.append(photo[y : y + size, x : x + size].astype(np.float32) / np.float32(255))
    damages: dict[str, Callable[[Picture, Generator], Picture]] = {
        "noise25": lambda p, rng: quantize(gaussian_noise(p, 25, rng)),
        "jpeg20": lambda p, rng: jpeg(p, 20),  # noqa: ARG005 (same signature for all)
        "mixed": lambda p, rng: jpeg(gaussian_noise(p, 15, rng), 50),
    }
    clean = torch.from_numpy(planar(crops))
    return {
        name: (torch.from_numpy(planar([damage(p, np.random.default_rng(i)) for i, p in enumerate(crops)])), clean)
        for name, damage in damages.items()
    }


class PredictorStage:
    """Trains E to restore as well as regression can."""

    kind = "predictor"

    def __init__(self, config: DtpmConfig, task: str, train: Pool, val: Pool) -> None:
        self.config = config
        self.task = task
        self.train = train
        self.pairs = val_pairs(val)
        self.model: nn.Module = Predictor(config.predictor)
        self.trained = {"": 1.0}

    def draw(self, recipe: Recipe, rng: Generator) -> Arrays:
        """clean and damaged, (batch, 3, crop, crop)."""
        clean = [self.train.crop(recipe.crop, rng).clean for _ in range(recipe.batch)]
        damaged = [TASKS[self.task](picture, rng) for picture in clean]
        return {"clean": planar(clean), "damaged": planar(damaged)}

    def loss(self, batch: dict[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        """Minus PSNR."""
        del random
        damaged = batch["damaged"].contiguous(memory_format=torch.channels_last)
        return {"loss": psnr_loss(self.model(damaged), batch["clean"])}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR in dB of the held-back pairs, per damage."""
        return {
            f"val_psnr_{name}": -float(psnr_loss(model(damaged).clamp(0, 1), clean))
            for name, (damaged, clean) in self.pairs.items()
        }

    def facts(self) -> dict[str, Any]:
        """The task it was trained for."""
        return {"task": self.task}
