"""The unconditional base of Gen2Res: a diffusion model of clean pictures, learnt from crops.

Crops are cut at several sizes and averaged down, so that the model knows a photo from its texture to its parts: an
album is restored at whatever size its photos have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...arrays import FloatImage
from ...models.checkpoints import Checkpoint
from ...models.gen2res import CONFIGS, Denoiser, Gen2ResConfig, restore
from ...sampling.schedule import ddpm, strided
from ..data.photos import Data, Pool, planar
from ..diffusion import draw_level, mix
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, Stage, Validation
from .hybrid import hybrid_loss

__all__ = ["EARLIER", "RECIPE", "STRUCTURES", "BaseRecipe", "DenoiserStage", "build", "draw_square"]

BARS = ddpm()
VAL_CROPS = 64  # held-back crops that the loss is measured on
VAL_CROP = 64  # side of them, pixels
VAL_LEVEL = 200  # of 1000, from which held-back crops are restored for the picture
VAL_STEPS = 10  # of DDIM


@dataclass(frozen=True)
class BaseRecipe(Recipe):
    """How to train the base."""

    shrink: int = 3  # crops are averaged over 1 to `shrink` pixels a side
    model: Gen2ResConfig = field(default_factory=lambda: CONFIGS["mobile"])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("shrink")


RECIPE = BaseRecipe(steps=60_000, batch=32, crop=64, rate=1e-3, ema=0.9995)
EARLIER: tuple[str, ...] = ()
STRUCTURES = False


def build(recipe: BaseRecipe, earlier: Mapping[str, Checkpoint], data: Data) -> Stage:
    """The stage that trains every parameter of a fresh denoiser."""
    del earlier
    model = Denoiser(recipe.model)
    recipe.check_crop(model.multiple_of)
    return DenoiserStage(model, {"": 1.0}, data.val, shrink=recipe.shrink, mirror=True)


def draw_square(pool: Pool, size: int, shrink: int, mirror: bool, rng: np.random.Generator) -> FloatImage:
    """A random square of a random photo, averaged over 1 to `shrink` pixels a side: (size, size, 3) in [0, 1].

    Photos are drawn alike, whatever their size. `mirror`: whether half of the squares are mirrored, left to right.
    """
    photo = pool.photos[int(rng.integers(len(pool.photos)))]
    factor = int(rng.integers(1, min(shrink, min(photo.shape[:2]) // size) + 1))
    side = size * factor
    y, x = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    square = photo[y : y + side, x : x + side].reshape(size, factor, size, factor, 3)
    mean = square.mean(axis=(1, 3), dtype=np.float32) / np.float32(255)
    return mean[:, ::-1] if mirror and rng.integers(2) else mean


class DenoiserStage:
    """Trains parts of a denoiser with the hybrid objective; also what `constrain` does to a trained one.

    trained: as in `Stage`. shrink, mirror: as in `draw_square`. noisiest: the last of the 1000 times that are drawn.
    """

    kind = "gen2res"

    def __init__(
        self,
        model: Denoiser,
        trained: Mapping[str, float],
        val: Pool,
        *,
        shrink: int,
        mirror: bool,
        noisiest: int = len(BARS),
    ) -> None:
        self.config = model.config
        self.model: nn.Module = model
        self.trained = dict(trained)
        self.frozen = nn.ModuleList()
        self.shrink, self.mirror, self.noisiest = shrink, mirror, noisiest
        self.val = _stacked([self.draw(val, VAL_CROP, np.random.default_rng(i)) for i in range(VAL_CROPS)])

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """clean and noise (3, crop, crop), the levels "bar" and "before" (one step nearer to clean), t, and a seed."""
        clean = planar(draw_square(pool, crop, self.shrink, self.mirror, rng))
        level = draw_level(BARS[: self.noisiest], clean.shape, rng)
        step = round(float(level["t"]) * self.noisiest)
        before = BARS[step - 2] if step > 1 else 1.0
        return {
            **level,
            "clean": clean,
            "t": np.array(step / len(BARS), np.float32),
            "before": np.array(before, np.float32),
            "seed": np.array(rng.integers(2**31)),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The squared error on the noise and the variational bound, in bits per dimension, of the variance."""
        if not self.config.dropout:
            return self._loss(self.model, batch)
        # Dropout draws from the global generator: a seed of the batch makes a resumed run equal the whole one.
        devices = [batch["clean"].device] if batch["clean"].is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(batch["seed"][0]))
            return self._loss(self.model, batch)

    def _loss(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        clean, noise, bar = batch["clean"] * 2 - 1, batch["noise"], batch["bar"]
        x = mix(clean, noise, bar).contiguous(memory_format=torch.channels_last)
        mse, bound = hybrid_loss(model(x, batch["t"]), x, clean, noise, bar, batch["before"]).mean(dim=1)
        return {"loss": mse + bound, "mse": mse, "bound": bound}

    def validate(self, model: nn.Module) -> Validation:
        """The losses on fixed crops, times and noise; and one picture: crops, noised, restored from there."""
        device = next(model.parameters()).device
        batch = {name: value.to(device) for name, value in self.val.items()}
        figures = {f"val_{name}": float(value) for name, value in self._loss(model, batch).items()}
        assert isinstance(model, Denoiser)
        return Validation(figures, {"restored": _picture(model, batch["clean"][:4], batch["noise"][:4])})

    def facts(self) -> dict[str, Any]:
        """Nothing is measured."""
        return {}


def _stacked(samples: Sequence[Arrays]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


def _picture(model: Denoiser, clean: Tensor, noise: Tensor) -> Tensor:
    """(3, 3 H, N W): clean crops, their noised start at VAL_LEVEL, what DDIM makes of it."""
    levels, times = strided(VAL_STEPS, BARS, VAL_LEVEL)
    bar = clean.new_full((len(clean),), levels[0])
    start = (mix(clean * 2 - 1, noise, bar) / 2 + 0.5).clamp(0, 1)
    restored = restore(model, clean, lambda _: noise, levels, times, "ddim")
    return torch.cat([torch.cat(list(row), dim=2) for row in (clean, start, restored)], dim=1)
