"""Stage II, on damaged and clean pairs of a task: the initial predictor E, then the adapters and their finish.

A further task may share E: its predictor is that of a finished DTPM, frozen, plus low-rank factors (`delta`). An app
that has the first task then needs only the factors and the adapters for the next one (`export/writer/multitask.py`).

The adapters are trained around the prior, which is frozen bit for bit, with the predictor at a share of the rate. The
residual that is diffused is x_0 - y_E with y_E taken as a constant, divided by the sigma of a calibrated predictor,
which then stays frozen as well, or by the standard deviation measured for a plain one.

The finish trains the same parts through the unrolled few-step sampler, on the restored image: the whole DDIM chain runs
with gradients. The nearest public relative of DTPM does so in all of its training; that it suits DTPM is our inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import MOBILE, Dtpm, DtpmConfig
from ...models.initial_predictor import DamageEstimator, Predictor
from ...sampling.schedule import TRAINING_STEPS
from ..data.photos import Pool, TrainingData, planar, val_pairs
from ..evaluation.score import batch_psnr, device_of, in_parts, side_by_side
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, StageDefinition, TrainingStage, Validation, stacked
from ..losses import damage_loss, detail_loss, diffusion_loss, draw_level, local_damage, mix, psnr_loss, sigma_loss
from .dtpm_stage import TaskRecipe, TaskStage, check_model, noisy_code

__all__ = [
    "ADAPTERS_STAGE",
    "DELTA_STAGE",
    "FINISH_STAGE",
    "PREDICTOR_STAGE",
    "AdapterRecipe",
    "AdapterStage",
    "DeltaRecipe",
    "FinishRecipe",
    "FinishStage",
    "PredictorRecipe",
    "PredictorStage",
]

JITTER = 0.1  # standard deviation of the logarithm of the factor on the true damage
FLOOR = 1e-4  # mean squared error, 40 dB: crops with hardly any damage must not outweigh the others
SCALE_BATCHES, SCALE_BATCH = 8, 32  # crops on which the scale of the residual is measured
LARGEST = 10.0  # of the scaled residual: single pixels at an edge must not dominate the loss


@dataclass(frozen=True)
class PredictorRecipe(Recipe):
    """How to train the predictor of a DTPM.

    loss = minus PSNR in dB + sigma * `sigma_loss` + damage * `damage_loss`, the last two for calibrated predictors.
    These restore a share `blind` of the crops under their own estimate of the damage, as in use, and the others under
    the true damage, so that they learn to trust the damage they are given: an amount above 1 relies on that.
    """

    task: str = "cleanup"
    model: DtpmConfig = field(default_factory=lambda: MOBILE)
    sigma: float = 0.1
    damage: float = 0.1
    blind: float = 0.5


class PredictorStage(TrainingStage):
    """Trains E, or its factors if the rest is another task's, to restore as well as regression can."""

    kind = "predictor"

    def __init__(self, recipe: PredictorRecipe, data: TrainingData) -> None:
        self.recipe = recipe
        self.pairs = val_pairs(data.val, recipe.task)
        self.predictor = Predictor(recipe.model.predictor)
        recipe.check_crop(self.predictor.multiple_of)
        super().__init__(recipe.model, self.predictor, task=recipe.task)
        self.trained = dict.fromkeys(self.predictor.own_parts(), 1.0)

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """Draw clean and damaged (3, crop, crop); jitter (), a factor on the true damage, 0 to use the estimate."""
        cut = pool.crop(crop, rng, self.recipe.task)
        arrays = {"clean": planar(cut.clean), "damaged": planar(cut.damaged)}
        if self.predictor.calibrated:
            jitter = 0 if rng.random() < self.recipe.blind else np.exp(rng.normal(0, JITTER))
            arrays["jitter"] = np.array(jitter, np.float32)
        return arrays

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Minus PSNR; for a calibrated predictor also the losses of its sigma and of its damage estimate."""
        damaged, clean = batch["damaged"].contiguous(memory_format=torch.channels_last), batch["clean"]
        if not self.predictor.calibrated:
            return {"loss": psnr_loss(self.predictor(damaged), clean)}
        true = local_damage(batch["damaged"], clean, DamageEstimator.cell)
        estimated, jitter = self.predictor.damage(damaged), batch["jitter"].reshape(-1, 1, 1, 1)
        given = torch.where(jitter > 0, jitter * true, estimated.detach().float())
        base, sigma = self.predictor.restore(damaged, given)
        figures = {
            "psnr": psnr_loss(base, clean, FLOOR),
            "sigma": sigma_loss(sigma, clean - base.float()),
            "damage": damage_loss(estimated, true),
        }
        total = figures["psnr"] + self.recipe.sigma * figures["sigma"] + self.recipe.damage * figures["damage"]
        return {"loss": total, **figures}

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB of the held-back pairs."""
        damaged, clean = self.pairs
        restored = in_parts(model, device_of(model), damaged)
        images = side_by_side(damaged, restored, clean)
        return Validation({"val_psnr": batch_psnr(restored, clean)}, {"damaged_restored_clean": images})


def _build_predictor(recipe: PredictorRecipe, _earlier: Mapping[str, Checkpoint], data: TrainingData) -> PredictorStage:
    """From scratch."""
    if recipe.model.predictor.lora:
        raise UsageError(
            f"model.predictor.lora is {recipe.model.predictor.lora}, but factors need the predictor of another task; "
            "train them with: pocketprior train dtpm delta --dtpm FILE"
        )
    return PredictorStage(recipe, data)


PREDICTOR_STAGE = StageDefinition(PredictorRecipe(steps=60_000, rate=1.5e-3), _build_predictor)


@dataclass(frozen=True)
class DeltaRecipe(PredictorRecipe):
    """How to train the factors; `model` is that of the first task."""

    rank: int = 4
    counts = (*PredictorRecipe.counts, "rank")


def _build_delta(recipe: DeltaRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> PredictorStage:
    """At first the predictor of the "dtpm" checkpoint. Raises UsageError for a checkpoint of the same task."""
    checkpoint = earlier["dtpm"]
    if checkpoint.facts["task"] == recipe.task:
        raise UsageError(
            f"the 'dtpm' checkpoint was trained for '{recipe.task}' itself; give another --task to share its weights"
        )
    check_model("dtpm", checkpoint, recipe.model, "predictor")
    if recipe.model.predictor.lora:
        raise UsageError(
            "the 'dtpm' checkpoint shares the predictor of another task; give the checkpoint of that task as --dtpm"
        )
    base = checkpoint.fill(Predictor(recipe.model.predictor), "predictor")
    model = replace(recipe.model, predictor=replace(recipe.model.predictor, lora=recipe.rank))
    stage = PredictorStage(replace(recipe, model=model), data)
    stage.model.load_state_dict(base.state_dict(), strict=False)  # the factors keep their initial values
    return stage


DELTA_STAGE = StageDefinition(DeltaRecipe(steps=20_000, rate=1.5e-3), _build_delta)


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
            predicted = predicted.float()
            estimate = mix(x, -predicted, alpha_bar) if self.config.prediction == "v" else predicted
            errors = detail_loss(fixed + scale * estimate, clean)
            figures["detail"] = (errors * (batch["t"] < self.recipe.detail_until)).mean()
            figures["loss"] = figures["loss"] + self.recipe.detail * figures["detail"]
        return figures


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
        super().__init__(recipe, checkpoint.fill(Dtpm(recipe.model)), earlier, data, recipe.sampling_steps)

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
