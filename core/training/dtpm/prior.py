"""Stage I, on clean photos: the semantic encoder, without labels, and the texture prior.

The encoder learns by VICReg (Bardes, Ponce and LeCun, ICLR 2022): two random views of one photo should get the same
code (invariance), while the codes of a batch keep their variance and stay uncorrelated. Views differ in window,
mirroring, colour and damage, so that the code says what a photo shows and not how noisy it is. Variance and covariance
are those of the part of a batch that one process computes at once: with several processes or `accumulate`, keep that
part large (64 or more).

The prior: x_0 - y_s, the photo minus its structure, is scaled to unit variance and diffused; the denoiser sees the
structure and the photo's semantic code. Stage II divides the residual by the sigma of a calibrated predictor, pixel by
pixel; the prior of such a model therefore learns residuals that are divided by their own local deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from ...arrays import FloatImage, Floats
from ...degradations import gaussian_blur, gaussian_noise
from ...degradations.filters import blend
from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import MOBILE, DtpmConfig
from ...models.semantic_code import SemanticEncoder
from ...models.texture_prior import TextureDenoiser
from ...sampling.samplers import ddim
from ...sampling.schedule import SCHEDULES, trailing
from ..data.photos import CONTEXTS, Crop, Pixels, Pool, TrainingData, planar
from ..evaluation.score import device_of, side_by_side
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, StageDefinition, TrainingStage, Validation, stacked
from ..losses import diffusion_loss, draw_level, local_deviation, mix
from .dtpm_stage import TaskRecipe, draw_code, frozen_encoder, noisy_code

__all__ = [
    "PRIOR_STAGE",
    "SEMANTIC_STAGE",
    "PriorRecipe",
    "PriorStage",
    "SemanticRecipe",
    "SemanticStage",
    "residual_scale",
    "vicreg",
]

EXPANDED = 512  # length of the vectors in the variance and covariance terms of VICReg
VAL_SIDE, VAL_CROPS, VAL_BATCH = 96, 256, 32
WINDOWS = (5, 9, 17, 33)  # pixels over which local deviations are taken
SAMPLING_STEPS = 4  # of the image that validation shows


@dataclass(frozen=True)
class SemanticRecipe(Recipe):
    """How to train the encoder of a DTPM."""

    model: DtpmConfig = field(default_factory=DtpmConfig)


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


class SemanticStage(TrainingStage):
    """Trains a `SemanticEncoder` through an expander that is thrown away.

    Raises UsageError for a model without a semantic code.
    """

    kind = "semantic"

    def __init__(self, recipe: SemanticRecipe, _earlier: Mapping[str, Checkpoint], data: TrainingData) -> None:
        config = recipe.model.semantic
        if not config.code:
            raise UsageError(
                "this model has no semantic code, so it needs no encoder: train its prior without --semantic, or "
                "choose a model that has one (--size base, or --set model.semantic.code=... with size and widths)"
            )
        self.contexts = data.train.at(0).contexts
        self.val = data.val
        self.encoder = SemanticEncoder(config)
        self.expander = nn.Sequential(nn.Linear(config.code, EXPANDED), nn.ReLU(), nn.Linear(EXPANDED, EXPANDED))
        super().__init__(config, nn.ModuleDict({"encoder": self.encoder, "expander": self.expander}))

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """Two damaged views, a and b (3, size, size), of one photo."""
        del crop  # the encoder looks at whole photos
        photo = int(rng.integers(len(pool.photos)))
        return {name: _view(pool.contexts[photo * CONTEXTS + int(rng.integers(CONTEXTS))], rng) for name in "ab"}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """VICReg on both views, in float32 (covariances lose too much in bf16)."""
        codes = self.encoder(torch.cat([batch["a"], batch["b"]])).float()
        with torch.autocast(codes.device.type, enabled=False):
            return vicreg(*self.expander(codes).chunk(2))

    def validate(self, model: nn.Module) -> Validation:
        """Standardise the codes; share of held-back views whose nearest neighbour by code shows the same photo."""
        encoder = model.get_submodule("encoder")
        assert isinstance(encoder, SemanticEncoder)
        device = encoder.mean.device
        encoder.standardize(_thumbnails(self.contexts, device))
        codes = F.normalize(encoder(_thumbnails(self.val.contexts, device)))
        nearest = (codes @ codes.T - 2 * torch.eye(len(codes), device=device)).argmax(dim=1)
        same = nearest // CONTEXTS == torch.arange(len(codes), device=device) // CONTEXTS
        return Validation({"val_same_photo": float(same.float().mean())}, {})


def _view(context: Pixels, rng: Generator) -> Floats:
    view = context.astype(np.float32) / np.float32(255)
    if rng.random() < 0.5:
        view = view[:, :, ::-1]
    gain = (rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, (3, 1, 1))).astype(np.float32)
    noise = np.float32(rng.uniform(0, 0.06)) * rng.standard_normal(view.shape, dtype=np.float32)
    bent = view ** np.float32(rng.uniform(0.7, 1.4))
    return np.clip(bent * gain + noise, 0, 1, dtype=np.float32)


def _thumbnails(contexts: Pixels, device: torch.device) -> Tensor:
    return torch.from_numpy(contexts).to(device).float() / 255


SEMANTIC_STAGE = StageDefinition(
    SemanticRecipe(steps=2500, batch=96, rate=1e-3, warmup=200, decay=1e-4, ema=0.99, save_every=500), SemanticStage
)


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    """How to train the texture prior of a DTPM."""

    model: DtpmConfig = field(default_factory=lambda: MOBILE)
    code_drop: float = TaskRecipe.code_drop
    code_noise: float = TaskRecipe.code_noise
    snr_cap: float = 0.0  # min-SNR weighting, 0 for none; see `diffusion_loss`
    local: float = 0.75  # share of the crops whose residual is divided by its local deviation, of calibrated models


def residual_scale(pool: Pool) -> float:
    """Standard deviation of photo minus structure over the whole pool, in [0, 1] units."""
    squares, count = 0.0, 0
    for photo, smooth in zip(pool.photos, pool.structures, strict=True):
        squares += float(np.square(photo.astype(np.float32) - smooth).sum(dtype=np.float64))
        count += photo.size
    return float(np.sqrt(squares / count) / 255)


class PriorStage(TrainingStage):
    """Trains the denoiser f_theta; the semantic encoder is frozen."""

    kind = "prior"

    def __init__(self, recipe: PriorRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> None:
        self.recipe = recipe
        self.encoder = frozen_encoder(earlier, recipe.model)
        self.scale = residual_scale(data.train.at(0))
        self.alpha_bars = SCHEDULES[recipe.model.schedule]()
        denoiser = TextureDenoiser(recipe.model.denoiser, recipe.model.semantic.code)
        recipe.check_crop(denoiser.unet.multiple_of)
        super().__init__(recipe.model, denoiser, self.encoder, residual_scale=self.scale)
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
        errors = []
        for held_back in self._held_back:
            batch = {name: tensor.to(device_of(model)) for name, tensor in held_back.items()}
            code = noisy_code(self.encoder, batch)
            errors.append([float(self._error(model, batch, c)) for c in (code, torch.zeros_like(code))])
        with_code, without = torch.tensor(errors).mean(dim=0).tolist()
        figures = {"val_loss": with_code}
        if self.config.semantic.code:
            figures["val_loss_without_code"] = without
        return Validation(figures, {"structure_textured_clean": self._image(model)})

    def _image(self, model: nn.Module) -> Tensor:
        """One held-back crop: its structure, the same with sampled texture, and the crop itself."""
        one = {name: tensor[:1].to(device_of(model)) for name, tensor in self._held_back[0].items()}
        levels, times = trailing(SAMPLING_STEPS, self.alpha_bars)
        code = noisy_code(self.encoder, one)

        def denoise(x: Tensor, step: int) -> Tensor:
            return model(x, one["structure"], code, x.new_full((1,), times[step]))

        texture = self.scale * ddim(denoise, one["noise"], levels, self.config.prediction)
        return side_by_side(one["structure"], one["structure"] + texture, one["clean"])

    @cached_property
    def _held_back(self) -> list[dict[str, Tensor]]:
        rng = np.random.default_rng(0)
        cuts = [self.val.crop(VAL_SIDE, rng) for _ in range(VAL_CROPS)]
        samples = [self._sample(cut, cut.smooth, 0, 0, rng) for cut in cuts]
        return [stacked(samples[i : i + VAL_BATCH]) for i in range(0, VAL_CROPS, VAL_BATCH)]


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


PRIOR_STAGE = StageDefinition(PriorRecipe(steps=60_000, rate=1.5e-3, ema=0.9995), PriorStage)
