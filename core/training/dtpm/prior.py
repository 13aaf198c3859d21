"""Stage I: the texture prior, learnt from clean photos.

x_0 - y_s, the photo minus its structure, is scaled to unit variance and diffused; the denoiser sees the structure and
the photo's semantic code. Stage II divides the residual by the sigma of a calibrated predictor, pixel by pixel; the
prior of such a model therefore learns residuals that are divided by their own local deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ...arrays import FloatImage
from ...degradations import gaussian_blur, gaussian_noise
from ...degradations.filters import blend
from ...models.checkpoints import Checkpoint
from ...models.dtpm import MOBILE, DtpmConfig, TextureDenoiser
from ...sampling.samplers import ddim
from ...sampling.schedule import SCHEDULES, trailing
from ..data.photos import Crop, Pool, TrainingData, planar
from ..evaluation.score import device_of, side_by_side
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, StageDefinition, Validation, stacked
from ..losses import diffusion_loss, draw_level, local_deviation, mix
from .dtpm_stage import frozen_encoder
from .semantic import CODE_DROP, CODE_NOISE, draw_code, noisy_code

__all__ = ["PRIOR_STAGE", "PriorRecipe", "PriorStage", "residual_scale"]

VAL_SIDE, VAL_CROPS, VAL_BATCH = 96, 256, 32
WINDOWS = (5, 9, 17, 33)  # pixels over which local deviations are taken
SAMPLING_STEPS = 4  # of the image that validation shows


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    """How to train the texture prior of a DTPM."""

    model: DtpmConfig = field(default_factory=lambda: MOBILE)
    code_drop: float = CODE_DROP
    code_noise: float = CODE_NOISE
    snr_cap: float = 0.0  # min-SNR weighting, 0 for none; see `diffusion_loss`
    local: float = 0.75  # share of the crops whose residual is divided by its local deviation, of calibrated models


def residual_scale(pool: Pool) -> float:
    """Standard deviation of photo minus structure over the whole pool, in [0, 1] units."""
    squares, count = 0.0, 0
    for photo, smooth in zip(pool.photos, pool.structures, strict=True):
        squares += float(np.square(photo.astype(np.float32) - smooth).sum(dtype=np.float64))
        count += photo.size
    return float(np.sqrt(squares / count) / 255)


class PriorStage:
    """Trains the denoiser f_theta; the semantic encoder is frozen."""

    kind = "prior"

    def __init__(self, recipe: PriorRecipe, encoder: nn.Module, data: TrainingData) -> None:
        self.recipe, self.config = recipe, recipe.model
        self.encoder = encoder
        self.scale = residual_scale(data.train.at(0))
        self.alpha_bars = SCHEDULES[self.config.schedule]()
        denoiser = TextureDenoiser(self.config.denoiser, self.config.semantic.code)
        recipe.check_crop(denoiser.unet.multiple_of)
        self.model: nn.Module = denoiser
        self.trained = {"": 1.0}
        self.frozen = nn.ModuleList([encoder])
        self.val = data.val

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """clean, structure and noise (3, crop, crop), level and code; window (), 0 for the scale of all photos."""
        cut = pool.crop(crop, rng)
        return self._sample(cut, _imperfect(cut, rng), self.recipe.code_drop, self.recipe.code_noise, rng)

    def _sample(self, cut: Crop, smooth: FloatImage, drop: float, noise: float, rng: Generator) -> Arrays:
        clean, window = planar(cut.clean), 0
        if self.config.predictor.damage and rng.random() < self.recipe.local:
            window = WINDOWS[rng.integers(len(WINDOWS))]
        return {
            "window": np.array(window, np.int64),
            "clean": clean,
            "structure": planar(smooth),
            **draw_level(self.alpha_bars, clean.shape, rng),
            **draw_code(cut.thumbnail, self.config.semantic.code, drop, noise, rng),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared error on the prediction, of the scaled residual."""
        return {"loss": self._error(self.model, batch, noisy_code(self.encoder, batch))}

    def _error(self, model: nn.Module, batch: Mapping[str, Tensor], code: Tensor) -> Tensor:
        structure, noise, alpha_bar = (batch[name] for name in ("structure", "noise", "alpha_bar"))
        residual = self._scaled(batch["clean"] - structure, batch["window"])
        x = mix(residual, noise, alpha_bar)
        x, structure = (a.contiguous(memory_format=torch.channels_last) for a in (x, structure))
        predicted = model(x, structure, code, batch["t"])
        return diffusion_loss(predicted, residual, noise, alpha_bar, self.config.prediction, self.recipe.snr_cap)

    def _scaled(self, residual: Tensor, windows: Tensor) -> Tensor:
        scale = residual.new_full((len(residual), 1, *residual.shape[2:]), self.scale)
        for window in WINDOWS:
            chosen = (windows == window).reshape(-1, 1, 1, 1)
            scale = torch.where(chosen, local_deviation(residual, window), scale)
        return residual / scale

    def validate(self, model: nn.Module) -> Validation:
        """The same loss on fixed crops, times and noise of held-back photos, with and without the code."""
        errors = torch.tensor([self._errors(model, batch) for batch in self._held_back])
        with_code, without = errors.mean(dim=0).tolist()
        figures = {"val_loss": with_code}
        if self.config.semantic.code:
            figures["val_loss_without_code"] = without
        return Validation(figures, self._images(model, self._held_back[0]))

    def _errors(self, model: nn.Module, batch: Mapping[str, Tensor]) -> list[float]:
        batch = {name: tensor.to(device_of(model)) for name, tensor in batch.items()}
        code = noisy_code(self.encoder, batch)
        return [float(self._error(model, batch, c)) for c in (code, torch.zeros_like(code))]

    def _images(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One held-back crop: its structure, the same with sampled texture, and the crop itself."""
        one = {name: tensor[:1].to(device_of(model)) for name, tensor in batch.items()}
        levels, times = trailing(SAMPLING_STEPS, self.alpha_bars)
        code = noisy_code(self.encoder, one)

        def denoise(x: Tensor, step: int) -> Tensor:
            return model(x, one["structure"], code, x.new_full((1,), times[step]))

        texture = self.scale * ddim(denoise, one["noise"], levels, self.config.prediction)
        row = side_by_side(one["structure"], one["structure"] + texture, one["clean"])
        return {"structure_textured_clean": row}

    @cached_property
    def _held_back(self) -> list[dict[str, Tensor]]:
        rng = np.random.default_rng(0)
        cuts = [self.val.crop(VAL_SIDE, rng) for _ in range(VAL_CROPS)]
        samples = [self._sample(cut, cut.smooth, 0, 0, rng) for cut in cuts]
        return [stacked(samples[i : i + VAL_BATCH]) for i in range(0, VAL_CROPS, VAL_BATCH)]

    def facts(self) -> dict[str, Any]:
        """The scale s of the residual."""
        return {"residual_scale": self.scale}


def _imperfect(crop: Crop, rng: Generator) -> FloatImage:
    """The structure of a crop, often with some texture left, sometimes blurred and noisy.

    In stage II the prior sees the output of a regression, not of a filter, so it must learn from imperfect structure.
    """
    smooth = crop.smooth
    if rng.random() < 0.5:
        smooth = blend(smooth, crop.clean, np.float32(rng.uniform(0, 0.3)))
    if rng.random() < 0.2:
        smooth = gaussian_noise(gaussian_blur(smooth, rng.uniform(0.3, 1.0)), rng.uniform(0, 2), rng)
    return smooth


def _build(recipe: PriorRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> PriorStage:
    return PriorStage(recipe, frozen_encoder(earlier, recipe.model), data)


PRIOR_STAGE = StageDefinition(PriorRecipe(steps=60_000, rate=1.5e-3, ema=0.9995), _build)
