"""Stage II, second part: the guidance adapters of one task around the frozen prior.

Trained: the adapters, and the predictor at a tenth of the rate. Frozen, bit for bit: the prior. The residual that is
diffused is x_0 - y_E with y_E taken as a constant, divided by the sigma of a calibrated predictor, which then stays
frozen as well, or by the standard deviation measured for a plain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import MOBILE, Dtpm, DtpmConfig
from ...sampling.schedule import SCHEDULES
from ..data.photos import Data, Pool, planar
from ..diffusion import draw_level, mix
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, Validation
from .earlier import check_model, frozen_encoder, trained_parts
from .losses import detail_loss, diffusion_loss
from .semantic import CODE_DROP, CODE_NOISE, draw_code, noisy_code
from .validation import HeldBack

__all__ = ["EARLIER", "RECIPE", "STRUCTURES", "AdapterRecipe", "AdapterStage", "build"]


@dataclass(frozen=True)
class AdapterRecipe(Recipe):
    """How to train the adapters of a task.

    loss = texture + content * L1(y_E, x_0) + detail * `detail_loss` of the clean estimate at times below
    `detail_until`; the reference design has 1, 0.1 and 0.3, with LPIPS as the last term.
    """

    task: str = "cleanup"
    model: DtpmConfig = field(default_factory=lambda: MOBILE)
    predictor_rate: float = 0.1  # share of the rate at which the predictor learns; 0 freezes it
    film_rate: float = 0.0  # share of the rate at which the prior's FiLM layers learn; 0: the whole prior is frozen
    code_drop: float = CODE_DROP
    code_noise: float = CODE_NOISE
    content: float = 1.0
    detail: float = 0.0
    detail_until: float = 0.3
    snr_cap: float = 0.0  # min-SNR weighting, 0 for none; see `diffusion_loss`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.content <= 0 < self.predictor_rate:
            raise UsageError(f"content must be above 0, or nothing would teach the predictor; got {self.content}")


RECIPE = AdapterRecipe(steps=20_000, rate=1e-3, ema=0.9995, predictor_rate=0.0)
EARLIER = ("semantic", "prior", "predictor")
STRUCTURES = False
SCALE_BATCHES, SCALE_BATCH = 8, 32  # crops on which the scale of the residual is measured
LARGEST = 10.0  # of the scaled residual: single pixels at an edge do not rule the loss


def build(recipe: AdapterRecipe, earlier: Mapping[str, Checkpoint], data: Data) -> AdapterStage:
    """The stage: prior and predictor from their checkpoints, adapters that change nothing yet."""
    check_model("prior", earlier["prior"], recipe.model, "denoiser", "semantic", "schedule", "prediction")
    check_model("predictor", earlier["predictor"], recipe.model, "predictor")
    dtpm = Dtpm(recipe.model)
    earlier["prior"].fill(dtpm.denoiser)
    earlier["predictor"].fill(dtpm.predictor)
    return AdapterStage(recipe, dtpm, frozen_encoder(earlier, recipe.model), data)


class AdapterStage:
    """Trains the adapters of a task around the prior and the predictor of `dtpm`."""

    kind = "dtpm"

    def __init__(self, recipe: AdapterRecipe, dtpm: Dtpm, encoder: nn.Module, data: Data) -> None:
        recipe.check_crop(dtpm.multiple_of)
        self.recipe, self.config = recipe, recipe.model
        self.dtpm = dtpm
        self.model: nn.Module = dtpm
        self.encode = partial(dtpm.encode, encoder)
        self.bars = SCHEDULES[self.config.schedule]()
        self.held_back = HeldBack(data.val, recipe.task, encoder, self.bars)
        self.trained = trained_parts(dtpm, recipe.predictor_rate)
        if recipe.film_rate > 0:
            films = [name for name, _ in dtpm.named_modules() if name.endswith(".film")]
            self.trained |= dict.fromkeys(films, recipe.film_rate)
        self.frozen = nn.ModuleList([encoder])
        if not dtpm.predictor.calibrated:
            dtpm.residual_scale.fill_(self._measured_scale(data.train.at(0)))

    @torch.no_grad()
    def _measured_scale(self, pool: Pool) -> float:
        squares = []
        for i in range(SCALE_BATCHES):
            rng = np.random.Generator(np.random.Philox(key=[2**32, i]))
            samples = [self._pair(pool, self.recipe.crop, rng) for _ in range(SCALE_BATCH)]
            clean, damaged = (torch.from_numpy(np.stack([s[name] for s in samples])) for name in ("clean", "damaged"))
            squares.append((clean - self.dtpm.predictor(damaged)).square().mean())
        return float(torch.stack(squares).mean().sqrt())

    def _pair(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        cut = pool.crop(crop, rng, self.recipe.task)
        return {
            "clean": planar(cut.clean),
            "damaged": planar(cut.damaged),
            "thumbnail": cut.thumbnail,
        }

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """clean, damaged and noise (3, crop, crop), level and code.

        The thumbnail of the clean photo stands for that of the damaged one: averaging removes fine damage, and the
        noise on the code covers the rest.
        """
        arrays = self._pair(pool, crop, rng)
        return {
            **arrays,
            **draw_level(self.bars, arrays["clean"].shape, rng),
            **draw_code(
                arrays["thumbnail"], self.config.semantic.code, self.recipe.code_drop, self.recipe.code_noise, rng
            ),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared error on the prediction of the scaled residual, L1 of the predictor, and local contrast."""
        code = noisy_code(self.encode, batch)
        clean, noise, bar = (batch[name] for name in ("clean", "noise", "bar"))
        damaged = batch["damaged"].contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.recipe.predictor_rate > 0):
            base, scale = (x.float() for x in self.dtpm.predict(damaged))
        fixed, scale = base.detach(), scale.detach()
        residual = ((clean - fixed) / scale).clamp(-LARGEST, LARGEST)
        x = mix(residual, noise, bar).contiguous(memory_format=torch.channels_last)
        predicted = self.dtpm.denoise(x, damaged, fixed, code, batch["t"])
        texture = diffusion_loss(predicted, residual, noise, bar, self.config.prediction, self.recipe.snr_cap)
        content = F.l1_loss(base, clean)
        figures = {"loss": texture + self.recipe.content * content, "texture": texture, "content": content}
        if self.recipe.detail > 0:
            figures["detail"] = self._detail(x, predicted.float(), fixed, scale, batch)
            figures["loss"] = figures["loss"] + self.recipe.detail * figures["detail"]
        return figures

    def _detail(self, x: Tensor, predicted: Tensor, base: Tensor, scale: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        bar = batch["bar"].reshape(-1, 1, 1, 1)
        estimate = bar.sqrt() * x - (1 - bar).sqrt() * predicted if self.config.prediction == "v" else predicted
        errors = detail_loss(base + scale * estimate, batch["clean"])
        return (errors * (batch["t"] < self.recipe.detail_until)).mean()

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB on held-back pairs: of the predictor, and of 4 steps at half and at full texture."""
        assert isinstance(model, Dtpm)
        return self.held_back.judge(model)

    def facts(self) -> dict[str, Any]:
        """The task, the scale of its residual, and the deviations of what is sampled."""
        return {
            "task": self.recipe.task,
            "residual_scale": float(self.dtpm.residual_scale),
            "deviations": self.held_back.deviations,
        }
