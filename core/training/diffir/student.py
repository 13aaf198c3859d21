"""What both phases of stage 2 share: the model, the target of its prior, what is drawn, how it is judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint, from_dict
from ...models.diffir import CpenS1, Diffir, DiffirConfig
from ..data.photos import Pool
from ..diffusion import mix
from ..loop.stage import Arrays, Validation
from .samples import DiffirRecipe, draw_pair, held_back, validation

__all__ = ["Priors", "Student", "check_model", "frozen_target"]


class Priors(NamedTuple):
    """Prior vectors of a batch, (N, ipr)."""

    target: Tensor  # Z, of the frozen CPEN_S1
    estimate: Tensor  # Z^, at the end of the reverse chain


class Student:
    """A `Diffir` that learns under the priors of a frozen CPEN_S1; a phase adds what is trained and the loss."""

    def __init__(self, recipe: DiffirRecipe, model: Diffir, target: CpenS1, val: Pool) -> None:
        self.recipe = recipe
        self.config = model.config
        self.diffir = model
        self.model: nn.Module = model
        self.target = target
        self.frozen = nn.ModuleList([target])
        self.pairs = held_back(val, recipe)

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """ "image", "clean", and the "noise" (ipr,) that the target's prior is noised with."""
        noise = rng.standard_normal(self.config.ipr, dtype=np.float32)
        return {**draw_pair(pool, crop, self.recipe, rng), "noise": noise}

    def priors(self, image: Tensor, batch: dict[str, Tensor]) -> Priors:
        """Z, and Z^ by all T steps from Z at the last level; only the end of the chain is supervised."""
        with torch.no_grad():
            target = self.target(image, batch["clean"]).float()
        bar = target.new_full((len(target),), self.diffir.levels[0])
        start = mix(target, batch["noise"], bar)
        return Priors(target, self.diffir.prior(self.diffir.condition(image), start).float())

    def validate(self, model: nn.Module) -> Validation:
        """PSNR in dB as deployed, under another photo's prior and the mean; error of the prior, and of a constant."""
        assert isinstance(model, Diffir)
        device = next(model.parameters()).device
        pairs = [(image.to(device), clean.to(device)) for image, clean in self.pairs]
        random = torch.Generator().manual_seed(0)
        noises = [torch.randn(1, self.config.ipr, generator=random).to(device) for _ in pairs]
        priors = [model.prior(model.condition(image), z) for (image, _), z in zip(pairs, noises, strict=True)]
        targets = torch.cat([self.target(*pair) for pair in pairs])
        found = validation(pairs, priors, model.restore)
        errors = {
            "val_prior": F.l1_loss(torch.cat(priors), targets),
            "val_prior_mean": F.l1_loss(targets.mean(dim=0).expand_as(targets), targets),
        }
        return Validation(found.figures | {name: float(value) for name, value in errors.items()}, found.pictures)

    def facts(self) -> dict[str, Any]:
        """The task it was trained for."""
        return {"task": self.recipe.task}


def frozen_target(pretrained: Checkpoint) -> CpenS1:
    """The CPEN_S1 of a checkpoint of stage 1."""
    target = CpenS1(from_dict(DiffirConfig, pretrained.config))
    pretrained.fill(target, "cpen")
    return target.eval().requires_grad_(False)


def check_model(recipe: DiffirRecipe, checkpoint: Checkpoint) -> None:
    """Raise UsageError when a checkpoint of an earlier stage holds another model than the recipe says.

    The number of diffusion steps is not part of stage 1.
    """
    given = from_dict(DiffirConfig, checkpoint.config)
    wanted = recipe.model
    if checkpoint.kind == "diffir-pretrain":
        given, wanted = (replace(config, steps=0) for config in (given, wanted))
    if given != wanted:
        raise UsageError(
            f"the '{checkpoint.kind}' checkpoint holds {given}, the recipe says {wanted}; "
            "give both the same --size and --set model..."
        )
