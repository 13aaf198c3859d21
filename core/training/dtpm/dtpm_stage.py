"""What the stages of DTPM share: the models they start from, codes, the stage-II base class, the held-back photos.

The stages with a code see few photos and many crops: `draw_code` therefore makes the codes noisy, and drops some.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint, from_dict
from ...models.dtpm import MOBILE, Dtpm, DtpmConfig
from ...models.semantic_code import NO_SEMANTIC, NoEncoder, encoder_of
from ...sampling.schedule import SCHEDULES, trailing
from ..data.photos import CONTEXTS, Pixels, Pool, TrainingData, planar, val_pairs
from ..evaluation.score import batch_psnr, device_of, in_parts, side_by_side
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, TrainingStage, Validation

__all__ = ["TaskRecipe", "TaskStage", "calibration", "check_model", "draw_code", "frozen_encoder", "noisy_code"]

GAINS = (0, 0.5, 1)
DEVIATION_STEPS = (1, 2, 4, 8, 50)  # for which the deviation of the samples is measured
DEVIATION_PHOTOS = 8


def frozen_encoder(earlier: Mapping[str, Checkpoint], model: DtpmConfig) -> nn.Module:
    """The semantic encoder of a run, or a stand-in for a model without a code; UsageError if `model` names another."""
    encoder = encoder_of(earlier["semantic"]) if "semantic" in earlier else NoEncoder()
    _check("semantic", {"semantic": encoder.config}, model)
    return encoder


def check_model(kind: str, checkpoint: Checkpoint, model: DtpmConfig, *names: str) -> None:
    """Raise UsageError, with the settings that fit, unless the checkpoint's model has the same fields `names`."""
    theirs = from_dict(DtpmConfig, checkpoint.config)
    _check(kind, {name: getattr(theirs, name) for name in names}, model)


def _check(kind: str, theirs: Mapping[str, Any], model: DtpmConfig) -> None:
    if kind == "semantic" and theirs["semantic"] == NO_SEMANTIC != model.semantic:
        raise UsageError("this model has a semantic code; give the encoder's checkpoint (--semantic FILE)")
    wanted = [s for name, value in theirs.items() for s in _settings(f"model.{name}", value, getattr(model, name))]
    if wanted:
        raise UsageError(
            f"the '{kind}' checkpoint has another model than this run; give the --size it was trained with, "
            f"or: {' '.join(f'--set {setting}' for setting in wanted)}"
        )


def _settings(name: str, theirs: Any, ours: Any) -> Iterator[str]:
    """The settings that turn `ours` into `theirs`."""
    if is_dataclass(theirs):
        for field in fields(theirs):
            yield from _settings(f"{name}.{field.name}", getattr(theirs, field.name), getattr(ours, field.name))
    elif theirs != ours:
        yield f"{name}={','.join(map(str, theirs)) if isinstance(theirs, tuple) else theirs}"


def draw_code(thumbnail: Pixels, length: int, drop: float, noise: float, rng: Generator) -> Arrays:
    """Draw "code_noise" float32 (length,) and "code_kept" float32 (), 0 or 1, for the "thumbnail" uint8 (3, S, S)."""
    return {
        "thumbnail": thumbnail,
        "code_noise": np.float32(noise) * rng.standard_normal(length, dtype=np.float32),
        "code_kept": np.array(rng.random() >= drop, np.float32),
    }


def noisy_code(encode: Callable[[Tensor], Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """The codes of a batch of what `draw_code` drew, (N, K) float32. encode: thumbnails (N, 3, S, S) -> codes."""
    thumbnails = batch["thumbnail"].float() / 255
    with torch.no_grad(), torch.autocast(thumbnails.device.type, enabled=False):
        code = encode(thumbnails)
    return (code + batch["code_noise"]) * batch["code_kept"][:, None]


@dataclass(frozen=True)
class TaskRecipe(Recipe):
    """How to train the adapters of a task."""

    task: str = "cleanup"
    model: DtpmConfig = field(default_factory=lambda: MOBILE)
    predictor_rate: float = 0.1  # share of the rate at which the predictor learns; 0 freezes it
    code_drop: float = 0.1  # share of crops trained without a code
    code_noise: float = 0.3  # standard deviation of noise on the (unit variance) codes


R = TypeVar("R", bound=TaskRecipe)


class TaskStage(TrainingStage, Generic[R]):
    """Stage II: the adapters of one task around the frozen prior of `dtpm`; a subclass adds the noise and the loss.

    steps: of the sampler that is validated. Raises UsageError for another model's encoder, and if a calibrated
    predictor would learn: its sigma would no longer be that of its errors.
    """

    kind = "dtpm"

    def __init__(
        self, recipe: R, dtpm: Dtpm, earlier: Mapping[str, Checkpoint], data: TrainingData, steps: int = 4
    ) -> None:
        encoder = frozen_encoder(earlier, recipe.model)
        recipe.check_crop(dtpm.multiple_of)
        super().__init__(recipe.model, dtpm, encoder)
        self.recipe, self.dtpm = recipe, dtpm
        self.encoder, self.encode = encoder, partial(dtpm.encode, encoder)
        self.alpha_bars = SCHEDULES[recipe.model.schedule]()
        self.sampling = trailing(steps, self.alpha_bars)
        self.damaged, self.clean = val_pairs(data.val, recipe.task)
        self.thumbnails = torch.from_numpy(data.val.contexts[::CONTEXTS].copy()).float() / 255
        self.noise = torch.randn(self.damaged.shape, generator=torch.Generator().manual_seed(0))
        self.deviations: dict[str, float] = {}  # of the model that was judged last; see `sampled_deviation`
        self.trained = {"adapters": 1.0}
        if recipe.predictor_rate == 0:
            return
        if dtpm.predictor.calibrated:
            raise UsageError(
                "a calibrated predictor is frozen in stage II; expected predictor_rate=0, got "
                f"{recipe.predictor_rate:g}; give --set predictor_rate=0"
            )
        self.trained |= dict.fromkeys(dtpm.predictor_parts(), recipe.predictor_rate)

    @abstractmethod
    def draw_noise(self, shape: Sequence[int], rng: Generator) -> Arrays:
        """The "noise" of one sample, and its level if the loss needs one."""

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """Draw clean and damaged (3, crop, crop), the arrays of `draw_noise` and the code.

        The thumbnail of the clean photo stands for that of the damaged one: averaging removes fine damage, and the
        noise on the code covers the rest.
        """
        recipe = self.recipe
        cut = pool.crop(crop, rng, recipe.task)
        clean = planar(cut.clean)
        return {
            "clean": clean,
            "damaged": planar(cut.damaged),
            **self.draw_noise(clean.shape, rng),
            **draw_code(cut.thumbnail, self.config.semantic.code, recipe.code_drop, recipe.code_noise, rng),
        }

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB on held-back pairs at each gain of the texture, 0 for the predictor alone; the `calibration`."""
        assert isinstance(model, Dtpm)

        def sample(damaged: Tensor, noise: Tensor, thumbnail: Tensor) -> Tensor:
            base, scale = model.predict(damaged)
            code = model.encode(self.encoder, thumbnail)
            residual = model.residual(damaged, base, code, noise, *self.sampling)
            texture = model.amplitude(scale) * residual
            return torch.stack([*(base + gain * texture for gain in GAINS), scale * residual], dim=1)

        *restored, samples = in_parts(sample, device_of(model), self.damaged, self.noise, self.thumbnails).unbind(dim=1)
        figures = {f"val_psnr_{g:g}": batch_psnr(r, self.clean) for g, r in zip(GAINS, restored, strict=True)}
        figures["val_calibration"] = calibration(samples, self.clean - restored[0])
        if model.predictor.calibrated:
            self.deviations = {str(steps): self._deviation(model, steps) for steps in DEVIATION_STEPS}
            figures["val_deviation_50"] = self.deviations["50"]
        images = side_by_side(self.damaged, *restored, self.clean)
        return Validation(figures, {"damaged_restored_clean": images})

    def _deviation(self, model: Dtpm, steps: int) -> float:
        """Root mean square of the scaled residuals sampled in `steps` steps, on the first photos."""
        device = device_of(model)
        inputs = (self.damaged, self.noise, self.thumbnails)
        damaged, noise, thumbnail = (tensor[:DEVIATION_PHOTOS].to(device) for tensor in inputs)
        base, _ = model.predict(damaged)
        code = model.encode(self.encoder, thumbnail)
        sampling = trailing(steps, self.alpha_bars)
        return float(model.residual(damaged, base, code, noise, *sampling).square().mean().sqrt())

    def facts(self) -> dict[str, Any]:
        """The task, the scale of its residual, and the deviations of the samples."""
        return {
            "task": self.recipe.task,
            "residual_scale": float(self.dtpm.residual_scale),
            "deviations": self.deviations,
        }


def calibration(samples: Tensor, residuals: Tensor) -> float:
    """Mean absolute logarithm of the standard deviation of a photo's sampled residual over that of its true one.

    samples, residuals: (N, 3, H, W), in the same unit. 0 is a sampler that knows how much each photo has lost.
    """
    sampled, true = (x.flatten(1).std(dim=1).clamp_min(1e-6) for x in (samples, residuals))
    return float((sampled / true).log().abs().mean())
