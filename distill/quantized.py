"""Quantization-aware fine-tuning: an int8 student learns to restore what its own float self restores.

It keeps its steps. All parts that compute on images learn, including those that the other methods leave to the teacher,
because int8 changes the output of every convolution (`core/models/deploy/fake_quant.py`). The checkpoint is that of the
float model; `pocketprior quantize --level int8` quantizes it as it was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator, Philox
from torch import Tensor, nn

from ..core.arrays import Image, to_image
from ..core.errors import UsageError
from ..core.metrics import psnr
from ..core.models.deploy.fake_quant import fake_quantize
from ..core.training.evaluation.score import EvaluationCase
from ..core.training.loop.stage import Validation, stacked
from .distillation import DistillRun, DistillStage
from .system import DistillRecipe

__all__ = ["QuantizedRecipe", "QuantizedStage"]

MEASURED_KEY = 2**35  # of the generators of measured crops: no sample of a training step has it
LEAST_ERROR = 1e-12  # stands in for the error of a teacher that makes none


@dataclass(frozen=True)
class QuantizedRecipe(DistillRecipe):
    """How to learn in int8. The teacher samples in the student's steps: `teacher_steps` has no meaning here."""

    measured: int = 64  # crops that the clip ranges are measured on
    counts = (*DistillRecipe.counts, "measured")


class QuantizedStage(DistillStage):
    """Learns in int8, with clip ranges that are measured on the teacher's restorations of random crops."""

    method = "quantized"
    systems = ("dtpm", "gen2res", "diffir")
    default = QuantizedRecipe(
        steps=1000, batch=8, rate=1e-4, warmup=50, precision="fp32", save_every=250, sampling_steps=1
    )

    def __init__(self, run: DistillRun[QuantizedRecipe]) -> None:
        recipe, system = run.recipe, run.system
        steps = system.own or system.steps(recipe.sampling_steps)
        if steps.step_count != recipe.sampling_steps:
            raise UsageError(
                f"{recipe.sampling_steps} steps were asked for, this model samples in {steps.step_count} and keeps "
                f"them in 8 bits; give --steps {steps.step_count}"
            )
        super().__init__(run, steps)
        self.teacher_steps = steps
        self.trained = {name: rate for name, rate in {**system.trained, **system.pictured}.items() if rate > 0}
        rngs = [Generator(Philox(key=[MEASURED_KEY + recipe.seed, i])) for i in range(recipe.measured)]
        crops = [system.draw(run.data.train.at(0), recipe.crop, rng) for rng in rngs]
        batch = {name: tensor.to(run.device) for name, tensor in stacked(crops).items()}
        self.frozen.to(run.device)
        fake_quantize(self.model.to(run.device), system.pictured, lambda model: system.restored(model, batch, steps))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """MSE between the images of student and teacher, relative to the teacher's own MSE to the truth.

        Both walk the same steps from the same noise.
        """
        with torch.no_grad():
            image = self.system.restored(self.system.teacher, batch, self.steps)
            own_error = F.mse_loss(image, batch["clean"]).clamp(min=LEAST_ERROR)
        return {"loss": F.mse_loss(self.system.restored(self.model, batch, self.steps), image) / own_error}

    def validate(self, model: nn.Module) -> Validation:
        """As the other methods, with `val_worst_db`: the PSNR between student and teacher on the worst photo."""
        found = super().validate(model)
        kept = [psnr(self._restored(model, case), self._restored(self.system.teacher, case)) for case in self.cases]
        return found._replace(figures={**found.figures, "val_worst_db": min(kept)})

    def _restored(self, model: nn.Module, case: EvaluationCase) -> Image:
        return to_image(self.system.restore(model, self.steps, case).numpy(), np.uint16)


METHOD = QuantizedStage
