"""The stages of Gen2Res: the unconditional base, a diffusion model of clean images, and its constraining to an album.

Crops are cut at several sizes and averaged down, so that the model learns everything from texture to parts of a scene:
an album is restored at whatever size its photos have.

The objective is that of Improved DDPM (Nichol and Dhariwal, ICML 2021): squared error on the noise, and a variational
bound from which only the variance learns. In both, images are in [-1, 1], `alpha_bar` is alpha_bar_t and `before` is
alpha_bar_{t-1}, 1 at the last step of sampling; both are (N,).

Constraining is the same loss on the few photos of an album. The paper trains all weights (3000 steps on a generative
album, 5000 on a personal one, batch 4, rate 1e-5); low-rank factors on frozen weights are ours, and the default. The
small network takes larger steps, and fewer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from ...arrays import FloatImage
from ...errors import UnknownNameError, UsageError
from ...models.checkpoints import Checkpoint
from ...models.gen2res import CONFIGS, Denoiser, Gen2ResConfig, restore
from ...models.gen2res import build as build_denoiser
from ...models.lora import factor_names
from ...sampling.schedule import ddpm, strided
from ..data.photos import Pool, TrainingData, planar
from ..evaluation.score import device_of
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, StageDefinition, TrainingStage, Validation, stacked
from ..losses import draw_level, mix

__all__ = [
    "BASE_STAGE",
    "CONSTRAIN_STAGE",
    "VAL_CROP",
    "BaseRecipe",
    "ConstrainRecipe",
    "DenoiserStage",
    "draw_square",
    "hybrid_loss",
    "variational_bound",
]

CONSTRAIN_METHODS = ("lora", "full")

ALPHA_BARS = ddpm()
BIN = 1 / 255  # half the distance between two grey levels of an image in [-1, 1]
LEAST = 1e-12  # smallest probability whose logarithm is taken
VAL_CROPS = 64  # held-back crops that the loss is measured on
VAL_CROP = 64  # side of them, pixels
VAL_LEVEL = 200  # of 1000, from which the crops of the shown image are restored
VAL_STEPS = 10  # of DDIM


@dataclass(frozen=True)
class BaseRecipe(Recipe):
    """How to train the base."""

    shrink: int = 3  # crops are averaged over 1 to `shrink` pixels a side
    model: Gen2ResConfig = field(default_factory=lambda: CONFIGS["mobile"])
    counts = (*Recipe.counts, "shrink")


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


class DenoiserStage(TrainingStage):
    """Trains a denoiser with the hybrid objective: a fresh one, or one that is being constrained.

    shrink, mirror: as in `draw_square`. noisiest: the last of the 1000 times that are drawn. facts: of the checkpoints.
    """

    kind = "gen2res"

    def __init__(
        self, model: Denoiser, val: Pool, *, shrink: int, mirror: bool, noisiest: int = len(ALPHA_BARS), **facts: bool
    ) -> None:
        super().__init__(model.config, model, **facts)
        self.shrink, self.mirror, self.noisiest = shrink, mirror, noisiest
        self.val = stacked([self.draw(val, VAL_CROP, np.random.default_rng(i)) for i in range(VAL_CROPS)])

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """Draw clean and noise (3, crop, crop), "alpha_bar" and "before" (one step nearer to clean), t, and a seed."""
        clean = planar(draw_square(pool, crop, self.shrink, self.mirror, rng))
        level = draw_level(ALPHA_BARS[: self.noisiest], clean.shape, rng)
        step = round(float(level["t"]) * self.noisiest)
        before = ALPHA_BARS[step - 2] if step > 1 else 1.0
        return {
            **level,
            "clean": clean,
            "t": np.array(step / len(ALPHA_BARS), np.float32),
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
        clean, noise, alpha_bar = batch["clean"] * 2 - 1, batch["noise"], batch["alpha_bar"]
        x = mix(clean, noise, alpha_bar).contiguous(memory_format=torch.channels_last)
        mse, bound = hybrid_loss(model(x, batch["t"]), x, clean, noise, alpha_bar, batch["before"]).mean(dim=1)
        return {"loss": mse + bound, "mse": mse, "bound": bound}

    def validate(self, model: nn.Module) -> Validation:
        """The losses on fixed crops, times and noise; and one image: crops, noised, restored from there."""
        batch = {name: value.to(device_of(model)) for name, value in self.val.items()}
        figures = {f"val_{name}": float(value) for name, value in self._loss(model, batch).items()}
        assert isinstance(model, Denoiser)
        return Validation(figures, {"restored": _sampled(model, batch["clean"][:4], batch["noise"][:4])})


def _sampled(model: Denoiser, clean: Tensor, noise: Tensor) -> Tensor:
    """(3, 3 H, N W): clean crops, noised to VAL_LEVEL, restored by DDIM."""
    levels, times = strided(VAL_STEPS, ALPHA_BARS, VAL_LEVEL)
    alpha_bar = clean.new_full((len(clean),), levels[0])
    start = (mix(clean * 2 - 1, noise, alpha_bar) / 2 + 0.5).clamp(0, 1)
    restored = restore(model, clean, lambda _: noise, levels, times, "ddim")
    return torch.cat([torch.cat(list(row), dim=2) for row in (clean, start, restored)], dim=1)


def hybrid_loss(
    predicted: Tensor, x: Tensor, clean: Tensor, noise: Tensor, alpha_bar: Tensor, before: Tensor
) -> Tensor:
    """L_simple + lambda L_vlb (Eq. 16) of each sample: (N,) as one row each of "mse" and "bound": (2, N).

    predicted: (N, 6, H, W), the noise and the share of the variance's range. lambda is 0.001 and L_vlb sums 1000
    steps, so at a uniformly drawn step the term weighs 1.
    """
    eps, share = predicted.float().chunk(2, dim=1)
    mse = (eps - noise).square().mean(dim=(1, 2, 3))
    return torch.stack([mse, variational_bound(eps.detach(), share, x, clean, alpha_bar, before)])


def variational_bound(
    eps: Tensor, share: Tensor, x: Tensor, clean: Tensor, alpha_bar: Tensor, before: Tensor
) -> Tensor:
    """L_{t-1} of the variational bound (Eqs. 4 to 7), mean over the pixels, in bits per dimension: (N,).

    The divergence of p(x_{t-1} | x_t) from q(x_{t-1} | x_t, x_0); at the last step (before = 1) minus the log
    probability of the image's grey level.
    """
    alpha_bar, before = alpha_bar.reshape(-1, 1, 1, 1), before.reshape(-1, 1, 1, 1)
    last = before >= 1
    alpha = alpha_bar / before
    beta = 1 - alpha
    # The last step has no beta~ of its own; Improved DDPM takes that of the step before it: about beta / 2.
    small = torch.where(last, beta * 0.5, beta * (1 - before) / (1 - alpha_bar))
    log_variance = torch.lerp(small.log(), beta.log(), (share + 1) / 2)
    guess = (x - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
    on_clean, on_state = before.sqrt() * beta / (1 - alpha_bar), alpha.sqrt() * (1 - before) / (1 - alpha_bar)
    error = on_clean * (guess - clean)  # the difference of the two means: both have on_state * x
    mean = on_clean * guess + on_state * x
    ratio = small.log() - log_variance
    divergence = 0.5 * (ratio.exp() - 1 - ratio + error.square() * (-log_variance).exp())
    terms = torch.where(last, -_log_grey_level(clean, mean, log_variance), divergence)
    return terms.mean(dim=(1, 2, 3)) / math.log(2)


def _log_grey_level(clean: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability of the grey level of `clean` under a normal distribution; the outermost include the tails."""
    inverse = (-0.5 * log_variance).exp()
    upper = torch.special.ndtr((clean + BIN - mean) * inverse)
    lower = torch.special.ndtr((clean - BIN - mean) * inverse)
    upper = torch.where(clean > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(clean < -0.999, torch.zeros_like(lower), lower)
    return (upper - lower).clamp_min(LEAST).log()


def _build_base(recipe: BaseRecipe, _earlier: Mapping[str, Checkpoint], data: TrainingData) -> DenoiserStage:
    """A fresh denoiser."""
    model = Denoiser(recipe.model)
    recipe.check_crop(model.multiple_of)
    return DenoiserStage(model, data.val, shrink=recipe.shrink, mirror=True)


BASE_STAGE = StageDefinition(BaseRecipe(steps=60_000, batch=32, crop=64, rate=1e-3, ema=0.9995), _build_base)


@dataclass(frozen=True)
class ConstrainRecipe(Recipe):
    """How to constrain the base to an album."""

    method: str = "lora"  # "lora" or "full"
    rank: int = 16  # of the low-rank factors
    mirror: bool = False  # half of the crops: for generated albums; a person's asymmetry carries identity
    shrink: int = 3  # crops are averaged over 1 to `shrink` pixels a side
    noisiest: int = len(ALPHA_BARS)  # the last of the 1000 times that are learnt; restoring from K needs those up to K
    counts = (*Recipe.counts, "rank", "shrink")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in CONSTRAIN_METHODS:
            raise UnknownNameError("method", self.method, CONSTRAIN_METHODS)
        if not 1 <= self.noisiest <= len(ALPHA_BARS):
            raise UsageError(f"recipe field 'noisiest' must be in 1..{len(ALPHA_BARS)}, got {self.noisiest}")


def _build_constraint(recipe: ConstrainRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> DenoiserStage:
    """All weights of a trained denoiser, or low-rank factors of them.

    Factors of an earlier constraint are multiplied in first. The weights of the last step are kept as they are (`ema`
    is 0), as the paper does: the rate ends at 0. "constrained" is a note for those who share the model.
    """
    model = build_denoiser(earlier["gen2res"])
    recipe.check_crop(model.multiple_of)
    if recipe.method == "lora":
        plain, model = model, Denoiser(replace(model.config, lora=recipe.rank))
        model.load_state_dict(plain.state_dict(), strict=False)  # the factors keep their initial values
    crops = {"shrink": recipe.shrink, "mirror": recipe.mirror, "noisiest": recipe.noisiest}
    stage = DenoiserStage(model.train(), data.val, **crops, constrained=True)
    stage.trained = dict.fromkeys(factor_names(model), 1.0) or stage.trained
    return stage


CONSTRAIN_STAGE = StageDefinition(
    ConstrainRecipe(steps=1000, batch=16, crop=64, rate=2e-4, warmup=0, ema=0.0, save_every=250), _build_constraint
)
