"""Stage II, second part: the guidance adapters of one task around the frozen prior, and their finish.

Trained: the adapters, and the predictor at a share of the rate. Frozen, bit for bit: the prior. The residual that is
diffused is x_0 - y_E with y_E taken as a constant, divided by the sigma of a calibrated predictor, which then stays
frozen as well, or by the standard deviation measured for a plain one.

The finish trains the same parts through the unrolled few-step sampler, on the restored image: the whole DDIM chain runs
with gradients. The nearest public relative of DTPM does so in all of its training; that it suits DTPM is our inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import Dtpm, DtpmConfig
from ...sampling.schedule import TRAINING_STEPS, trailing
from ..data.photos import Pool, TrainingData, planar
from ..loop.stage import Arrays, StageDefinition, stacked
from ..losses import detail_loss, diffusion_loss, draw_level, mix, psnr_loss
from .dtpm_stage import TaskRecipe, TaskStage, check_model, noisy_code

__all__ = ["ADAPTERS_STAGE", "FINISH_STAGE", "AdapterRecipe", "AdapterStage", "FinishRecipe", "FinishStage"]

SCALE_BATCHES, SCALE_BATCH = 8, 32  # crops on which the scale of the residual is measured
LARGEST = 10.0  # of the scaled residual: single pixels at an edge must not dominate the loss


@dataclass(frozen=True)
class AdapterRecipe(TaskRecipe):
    """How to train the adapters of a task.

    loss = texture + content * L1(y_E, x_0) + detail * `detail_loss` of the clean estimate at times below
    `detail_until`; the reference design has 1, 0.1 and 0.3, with LPIPS as the last term.
    """

    film_rate: float = 0.0  # share of the rate at which the prior's FiLM layers learn; 0: the whole prior is frozen
    content: float = 1.0
    detail: float = 0.0
    detail_until: float = 0.3
    snr_cap: float = 0.0  # min-SNR weighting, 0 for none; see `diffusion_loss`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.content <= 0 < self.predictor_rate:
            raise UsageError(f"content must be above 0 for the predictor to learn, got {self.content}")


class AdapterStage(TaskStage[AdapterRecipe]):
    """Trains adapters that change nothing at first, around the prior and the predictor of their checkpoints."""

    def __init__(self, recipe: AdapterRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> None:
        check_model("prior", earlier["prior"], recipe.model, "denoiser", "semantic", "schedule", "prediction")
        check_model("predictor", earlier["predictor"], recipe.model, "predictor")
        dtpm = Dtpm(recipe.model)
        earlier["prior"].fill(dtpm.denoiser)
        earlier["predictor"].fill(dtpm.predictor)
        super().__init__(recipe, dtpm, earlier, data)
        if recipe.film_rate > 0:
            films = [name for name, _ in dtpm.named_modules() if name.endswith(".film")]
            self.trained |= dict.fromkeys(films, recipe.film_rate)
        if not dtpm.predictor.calibrated:
            dtpm.residual_scale.fill_(self._measured_scale(data.train.at(0)))

    @torch.no_grad()
    def _measured_scale(self, pool: Pool) -> float:
        squares = []
        for i in range(SCALE_BATCHES):
            rng = np.random.Generator(np.random.Philox(key=[2**32, i]))
            cuts = [pool.crop(self.recipe.crop, rng, self.recipe.task) for _ in range(SCALE_BATCH)]
            batch = stacked([{"clean": planar(cut.clean), "damaged": planar(cut.damaged)} for cut in cuts])
            squares.append((batch["clean"] - self.dtpm.predictor(batch["damaged"])).square().mean())
        return float(torch.stack(squares).mean().sqrt())

    def draw_noise(self, shape: Sequence[int], rng: Generator) -> Arrays:
        """A level and the noise; see `draw_level`."""
        return draw_level(self.alpha_bars, shape, rng)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared error on the prediction of the scaled residual, L1 of the predictor, and local contrast."""
        code = noisy_code(self.encode, batch)
        clean, noise, alpha_bar = (batch[name] for name in ("clean", "noise", "alpha_bar"))
        damaged = batch["damaged"].contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.recipe.predictor_rate > 0):
            base, scale = (x.float() for x in self.dtpm.predict(damaged))
        fixed, scale = base.detach(), scale.detach()
        residual = ((clean - fixed) / scale).clamp(-LARGEST, LARGEST)
        x = mix(residual, noise, alpha_bar).contiguous(memory_format=torch.channels_last)
        predicted = self.dtpm.denoise(x, damaged, fixed, code, batch["t"])
        texture = diffusion_loss(predicted, residual, noise, alpha_bar, self.config.prediction, self.recipe.snr_cap)
        content = F.l1_loss(base, clean)
        figures = {"loss": texture + self.recipe.content * content, "texture": texture, "content": content}
        if self.recipe.detail > 0:
            figures["detail"] = self._detail(x, predicted.float(), fixed, scale, batch)
            figures["loss"] = figures["loss"] + self.recipe.detail * figures["detail"]
        return figures

    def _detail(self, x: Tensor, predicted: Tensor, base: Tensor, scale: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        alpha_bar = batch["alpha_bar"].reshape(-1, 1, 1, 1)
        from_v = self.config.prediction == "v"
        estimate = alpha_bar.sqrt() * x - (1 - alpha_bar).sqrt() * predicted if from_v else predicted
        errors = detail_loss(base + scale * estimate, batch["clean"])
        return (errors * (batch["t"] < self.recipe.detail_until)).mean()


ADAPTERS_STAGE = StageDefinition(AdapterRecipe(steps=20_000, rate=1e-3, ema=0.9995, predictor_rate=0.0), AdapterStage)


@dataclass(frozen=True)
class FinishRecipe(TaskRecipe):
    """How to finish the adapters of a task.

    loss = psnr * (minus PSNR in dB) + l1 * L1 + detail * `detail_loss`, of the restored image, + content * L1(y_E,
    x_0). A decibel weighs as much as its derivative: at 30 dB, 0.003 of it pulls about as hard as an L1 of 1.
    """

    sampling_steps: int = 4
    psnr: float = 0.003
    l1: float = 0.0
    detail: float = 1.0
    content: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.psnr + self.l1 <= 0:
            raise UsageError(f"psnr or l1 must be above 0 for the image to be restored, got {self.psnr} and {self.l1}")
        if not 1 <= self.sampling_steps <= TRAINING_STEPS:
            raise UsageError(f"sampling_steps must be in 1..{TRAINING_STEPS}, got {self.sampling_steps}")


class FinishStage(TaskStage[FinishRecipe]):
    """Trains adapters and predictor of the "dtpm" checkpoint through its sampler.

    Raises UsageError for a checkpoint of another model or task.
    """

    def __init__(self, recipe: FinishRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> None:
        checkpoint = earlier["dtpm"]
        check_model("dtpm", checkpoint, recipe.model, *(DtpmConfig.__dataclass_fields__))
        if checkpoint.facts["task"] != recipe.task:
            raise UsageError(f"the 'dtpm' checkpoint was trained for '{checkpoint.facts['task']}', not '{recipe.task}'")
        dtpm = Dtpm(recipe.model)
        checkpoint.fill(dtpm)
        super().__init__(recipe, dtpm, earlier, data, recipe.sampling_steps)
        self.sampling = trailing(recipe.sampling_steps, self.alpha_bars)

    def draw_noise(self, shape: Sequence[int], rng: Generator) -> Arrays:
        """The noise that the sampler starts from."""
        return {"noise": rng.standard_normal(tuple(shape), dtype=np.float32)}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """PSNR, L1 and local contrast of the image that the sampler restores, and L1 of the predictor."""
        code = noisy_code(self.encode, batch)
        damaged, noise = (batch[name].contiguous(memory_format=torch.channels_last) for name in ("damaged", "noise"))
        base, scale = (x.float() for x in self.dtpm.predict(damaged))
        residual = self.dtpm.residual(damaged, base, code, noise, *self.sampling)
        restored, clean = base + scale * residual, batch["clean"]
        figures = {
            "psnr": psnr_loss(restored, clean),
            "l1": F.l1_loss(restored, clean),
            "detail": detail_loss(restored, clean).mean(),
            "content": F.l1_loss(base, clean),
        }
        terms = [getattr(self.recipe, name) * value for name, value in figures.items()]
        return {"loss": torch.stack(terms).sum(), **figures}


FINISH_STAGE = StageDefinition(
    FinishRecipe(steps=5_000, batch=16, rate=1e-4, ema=0.999, predictor_rate=0.0), FinishStage
)
