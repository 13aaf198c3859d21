"""Quantization-aware fine-tuning: a student in 8 bits learns to restore what its own float self restores.

It keeps its steps, and all of it that computes on pictures learns, the parts that the other methods leave to the
teacher as well: 8 bits change what every convolution makes. How: `core/models/deploy/fake_quant.py`. The checkpoint
is that of the float model; `pocketprior quantize --level int8` puts it into the 8 bits that it learnt in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.arrays import Image, to_image
from ..core.errors import UsageError
from ..core.metrics import psnr
from ..core.models.deploy.fake_quant import fake_quantize
from ..core.sampling.steps import Steps
from ..core.training.data.photos import Data
from ..core.training.evaluation.score import Case
from ..core.training.loop.stage import Validation
from .recipe import DistillRecipe
from .stage import DistillStage
from .system import System

__all__ = ["RECIPE", "SYSTEMS", "QuantizedRecipe", "QuantizedStage", "build", "loss"]

KEY = 2**35  # of the generators of measured crops: no sample of a training step has it
TINY = 1e-12  # least error of a teacher: of one that restores without any


@dataclass(frozen=True)
class QuantizedRecipe(DistillRecipe):
    """How to learn in 8 bits. The teacher samples in the student's steps: `teacher_steps` has no meaning here."""

    measured: int = 64  # crops that the bounds of 8 bits are measured on

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("measured")


RECIPE = QuantizedRecipe(
    steps=1000,
    batch=8,
    crop=64,
    rate=1e-4,
    warmup=50,
    ema=0.995,
    precision="fp32",
    save_every=250,
    sampling_steps=1,
)
SYSTEMS = ("dtpm", "gen2res", "diffir")


def loss(system: System, student: nn.Module, batch: dict[str, Tensor], steps: Steps) -> dict[str, Tensor]:
    """MSE of the student's picture to that of the teacher, in units of the teacher's own to the truth.

    Both walk the same `steps` from the same noise.
    """
    with torch.no_grad():
        picture = system.restored(system.teacher, batch, steps)
        own_error = F.mse_loss(picture, batch["clean"]).clamp(min=TINY)
    return {"loss": F.mse_loss(system.restored(student, batch, steps), picture) / own_error}


class QuantizedStage(DistillStage):
    """Learns in 8 bits, between bounds that are measured on the teacher's restorations of random crops."""

    def __init__(self, system: System, recipe: QuantizedRecipe, data: Data, device: torch.device) -> None:
        steps = system.own or system.steps(recipe.sampling_steps)
        if steps.step_count != recipe.sampling_steps:
            raise UsageError(
                f"{recipe.sampling_steps} steps were asked for, this model samples in {steps.step_count} and keeps "
                f"them in 8 bits; give --steps {steps.step_count}"
            )
        super().__init__("quantized", system, recipe, data, loss, steps=steps)
        self.gates.teacher_steps = steps
        self.trained = {name: rate for name, rate in {**system.trained, **system.pictured}.items() if rate > 0}
        rngs = [np.random.Generator(np.random.Philox(key=[KEY + recipe.seed, i])) for i in range(recipe.measured)]
        crops = [system.draw(data.train.at(0), recipe.crop, rng) for rng in rngs]
        batch = {name: torch.from_numpy(np.stack([crop[name] for crop in crops])).to(device) for name in crops[0]}
        self.frozen.to(device)
        fake_quantize(self.model.to(device), system.pictured, lambda model: system.restored(model, batch, steps))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of the student as it is now."""
        return loss(self.system, self.model, batch, self.steps)

    def validate(self, model: nn.Module) -> Validation:
        """As the other methods, and `val_worst_db`: the PSNR to the teacher's picture that the worst photo keeps."""
        found = super().validate(model)
        kept = [
            psnr(self._restored(model, case), self._restored(self.system.teacher, case)) for case in self.gates.cases
        ]
        return found._replace(figures={**found.figures, "val_worst_db": min(kept)})

    def _restored(self, model: nn.Module, case: Case) -> Image:
        return to_image(self.system.restore(model, self.steps, case).numpy(), np.uint16)


def build(recipe: QuantizedRecipe, system: System, data: Data, run: Path, device: torch.device) -> QuantizedStage:
    """The stage."""
    del run
    return QuantizedStage(system, recipe, data, device)
