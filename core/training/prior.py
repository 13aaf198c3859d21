"""Stage I: the texture prior, learnt from clean photos.

x_0 - y_s, the photo minus its structure, is scaled to unit variance and diffused; the denoiser sees the structure and
the photo's semantic code and predicts v.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from ..degradations import gaussian_blur, gaussian_noise
from ..models.dtpm import Denoiser, DtpmConfig
from ..models.semantic import SemanticEncoder
from ..schedule import SCHEDULES
from ..texture import blend
from .loop import Arrays
from .photos import Crop, Pool
from .predictor import planar
from .recipe import Recipe

__all__ = ["RECIPE", "PriorStage", "diffuse", "pool_codes", "residual_scale", "v_loss"]

RECIPE = Recipe(steps=60_000, batch=32, rate=1.5e-3, final_rate=1e-6, ema=0.9995)
CODE_DROP = 0.1  # share of crops trained without a code
CODE_NOISE = 0.3  # standard deviation of noise on the (unit variance) codes: few photos, many crops


def pool_codes(encoder: SemanticEncoder, pool: Pool) -> Tensor:
    """The code of every context of the pool, (contexts, K)."""
    with torch.no_grad():
        return encoder(torch.from_numpy(pool.contexts).float() / 255)


def residual_scale(pool: Pool) -> float:
    """Standard deviation of photo minus structure over the whole pool, in [0, 1] units."""
    squares, count = 0.0, 0
    for photo, smooth in zip(pool.photos, pool.structures, strict=True):
        squares += float(np.square(photo.astype(np.float32) - smooth).sum(dtype=np.float64))
        count += photo.size
    return float(np.sqrt(squares / count) / 255)


def diffuse(clean: Tensor, bars: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, its v target and t in (0, 1], at a random time for each row of `clean` (N, ...); bars: abar_1 .. abar_T."""
    steps = torch.randint(1, len(bars) + 1, (len(clean),), generator=random)
    noise = torch.randn(clean.shape, generator=random)
    bar = bars[steps - 1].reshape(-1, *[1] * (clean.dim() - 1))
    x = bar.sqrt() * clean + (1 - bar).sqrt() * noise
    v = bar.sqrt() * noise - (1 - bar).sqrt() * clean
    return x, v, steps / len(bars)


def v_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error on v: the x0 error weighted by SNR + 1 (Salimans and Ho 2022)."""
    return F.mse_loss(predicted.float(), target)


class PriorStage:
    """Trains the denoiser f_theta; the semantic encoder is frozen."""

    kind = "prior"

    def __init__(self, config: DtpmConfig, encoder: SemanticEncoder, train: Pool, val: Pool) -> None:
        self.config = config
        self.train, self.val = train, val
        self.codes, self.val_codes = pool_codes(encoder, train), pool_codes(encoder, val)
        self.scale = residual_scale(train)
        self.bars = torch.tensor(SCHEDULES[config.schedule]())
        self.model: nn.Module = Denoiser(config.denoiser, config.semantic.code)
        self.trained = {"": 1.0}

    def draw(self, recipe: Recipe, rng: Generator) -> Arrays:
        """clean, structure (batch, 3, crop, crop) and the context row of each crop (batch,)."""
        crops = [self.train.crop(recipe.crop, rng) for _ in range(recipe.batch)]
        return {
            "clean": planar([c.clean for c in crops]),
            "structure": planar([_imperfect(c, rng) for c in crops]),
            "context": np.array([c.context for c in crops]),
        }

    def loss(self, batch: dict[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        """MSE on v of the scaled residual."""
        code = self.codes[batch["context"]]
        code = code + CODE_NOISE * torch.randn(code.shape, generator=random)
        code = code * (torch.rand((len(code), 1), generator=random) >= CODE_DROP)
        return {"loss": self._error(self.model, batch["clean"], batch["structure"], code, random)}

    def _error(
        self, model: nn.Module, clean: Tensor, structure: Tensor, code: Tensor, random: torch.Generator
    ) -> Tensor:
        x, v, t = diffuse((clean - structure) / self.scale, self.bars, random)
        x, structure = (a.contiguous(memory_format=torch.channels_last) for a in (x, structure))
        return v_loss(model(x, structure, code, t), v)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """The same loss on fixed crops, times and noise of held-back photos, with and without the code."""
        rng, size = np.random.default_rng(0), 96
        crops = [self.val.crop(size, rng) for _ in range(256)]
        clean, smooth = (torch.from_numpy(planar([getattr(c, k) for c in crops])) for k in ("clean", "smooth"))
        code = self.val_codes[[c.context for c in crops]]
        return {
            name: float(self._error(model, clean, smooth, given, torch.Generator().manual_seed(0)))
            for name, given in (("val_loss", code), ("val_loss_without_code", torch.zeros_like(code)))
        }

    def facts(self) -> dict[str, Any]:
        """The scale s of the residual."""
        return {"residual_scale": self.scale}


def _imperfect(crop: Crop, rng: Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The structure of a crop, often with some texture left, sometimes blurred and noisy.

    Stage II hands the prior a regression's output, which is no filter's output: it must have seen imperfect structure.
    """
    smooth = crop.smooth
    if rng.random() < 0.5:
        smooth = blend(crop.clean, smooth, rng.uniform(0, 0.3))
    if rng.random() < 0.2:
        smooth = gaussian_noise(gaussian_blur(smooth, rng.uniform(0.3, 1.0)), rng.uniform(0, 2), rng)
    return smooth
