"""Training of the semantic encoder, without labels.

VICReg (Bardes, Ponce and LeCun, ICLR 2022): two random views of one photo should get the same code (invariance), while
the codes of a batch keep their variance and stay uncorrelated. Views differ in window, mirroring, colour and damage, so
that the code says what a photo shows and not how noisy it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from ..models.semantic import SemanticConfig, SemanticEncoder
from .loop import Arrays
from .photos import CONTEXTS, Pool
from .recipe import Recipe

__all__ = ["RECIPE", "SemanticStage", "vicreg"]

RECIPE = Recipe(steps=2500, batch=96, rate=1e-3, warmup=200, decay=1e-4, ema=0.99, save_every=500)
EXPANDED = 512  # length of the vectors that the variance and covariance terms look at


def vicreg(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Eqs. 1-6 with the paper's weights 25, 25, 1. a, b: (N, D) vectors of two views of the same photos."""
    invariance = F.mse_loss(a, b)
    variance = sum(F.relu(1 - torch.sqrt(v.var(dim=0) + 1e-4)).mean() for v in (a, b)) / 2
    covariance = sum(_off_diagonal(v).square().sum() / v.shape[1] for v in (a, b))
    loss = 25 * invariance + 25 * variance + covariance
    return {"loss": loss, "invariance": invariance, "covariance": torch.as_tensor(covariance)}


def _off_diagonal(v: Tensor) -> Tensor:
    centred = v - v.mean(dim=0)
    covariance = centred.T @ centred / (len(v) - 1)
    return covariance - torch.diag(torch.diag(covariance))


class SemanticStage:
    """Trains a `SemanticEncoder` through an expander that is thrown away."""

    kind = "semantic"

    def __init__(self, config: SemanticConfig, train: Pool, val: Pool) -> None:
        self.config = config
        self.train, self.val = train, val
        self.encoder = SemanticEncoder(config)
        self.expander = nn.Sequential(nn.Linear(config.code, EXPANDED), nn.ReLU(), nn.Linear(EXPANDED, EXPANDED))
        self.model: nn.Module = nn.ModuleDict({"encoder": self.encoder, "expander": self.expander})
        self.trained = {"": 1.0}

    def draw(self, recipe: Recipe, rng: Generator) -> Arrays:
        """Two damaged views, (batch, 3, size, size), of distinct photos where there are enough."""
        count = len(self.train.photos)
        photos = rng.choice(count, recipe.batch, replace=count < recipe.batch)
        return {name: np.stack([self._view(int(p), rng) for p in photos]) for name in ("a", "b")}

    def _view(self, photo: int, rng: Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
        view = self.train.contexts[photo * CONTEXTS + int(rng.integers(CONTEXTS))].astype(np.float32) / 255
        if rng.random() < 0.5:
            view = view[:, :, ::-1]
        gain = (rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, (3, 1, 1))).astype(np.float32)
        noise = np.float32(rng.uniform(0, 0.06)) * rng.standard_normal(view.shape, dtype=np.float32)
        return np.clip(view ** np.float32(rng.uniform(0.7, 1.4)) * gain + noise, 0, 1)

    def loss(self, batch: dict[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        """VICReg on both views, in float32 (covariances lose too much in bf16)."""
        del random
        codes = self.encoder(torch.cat([batch["a"], batch["b"]])).float()
        with torch.autocast("cpu", enabled=False):
            return vicreg(*self.expander(codes).chunk(2))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Standardise the codes; share of held-back views whose nearest neighbour by code shows the same photo."""
        encoder = model.get_submodule("encoder")
        assert isinstance(encoder, SemanticEncoder)
        encoder.standardize(torch.from_numpy(self.train.contexts).float() / 255)
        codes = F.normalize(encoder(torch.from_numpy(self.val.contexts).float() / 255))
        nearest = (codes @ codes.T - 2 * torch.eye(len(codes))).argmax(dim=1)
        same = nearest // CONTEXTS == torch.arange(len(codes)) // CONTEXTS
        return {"val_same_photo": float(same.float().mean())}

    def facts(self) -> dict[str, Any]:
        """Nothing beyond the weights."""
        return {}
