"""Constraining the base to an album: the ordinary diffusion loss on a few photos, nothing else.

The paper trains all weights (3000 steps on a generative album, 5000 on a personal one, batch 4, rate 1e-5); low-rank
factors on frozen weights are ours, and the default. The small network takes larger steps, and fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import UnknownNameError, UsageError
from ...models.checkpoints import Checkpoint
from ...models.gen2res import Denoiser, Gen2ResConfig
from ...models.gen2res import build as build_denoiser
from ...models.lora import factor_names
from ..data.photos import TrainingData
from ..loop.recipe import Recipe
from ..loop.stage import StageDefinition
from .base import ALPHA_BARS, DenoiserStage

__all__ = ["CONSTRAIN_METHODS", "CONSTRAIN_STAGE", "ConstrainRecipe", "ConstrainStage"]

CONSTRAIN_METHODS = ("lora", "full")


@dataclass(frozen=True)
class ConstrainRecipe(Recipe):
    """How to constrain the base to an album."""

    method: str = "lora"  # "lora" or "full"
    rank: int = 16  # of the low-rank factors
    mirror: bool = False  # half of the crops: for generated albums; a person's asymmetry carries identity
    shrink: int = 3  # crops are averaged over 1 to `shrink` pixels a side
    noisiest: int = len(ALPHA_BARS)  # the last of the 1000 times that are learnt; restoring from K needs those up to K

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in CONSTRAIN_METHODS:
            raise UnknownNameError("method", self.method, CONSTRAIN_METHODS)
        if not 1 <= self.noisiest <= len(ALPHA_BARS):
            raise UsageError(f"recipe field 'noisiest' must be in 1..{len(ALPHA_BARS)}, got {self.noisiest}")
        self.at_least_one("rank", "shrink")


class ConstrainStage(DenoiserStage):
    """Trains a denoiser on an album; its checkpoints say so."""

    def facts(self) -> dict[str, Any]:
        """A note for those who share the model."""
        return {"constrained": True}


def _build(recipe: ConstrainRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> ConstrainStage:
    """All weights of a trained denoiser, or low-rank factors of them.

    Factors of an earlier constraint are multiplied in first. The weights of the last step are kept as they are (`ema`
    is 0), as the paper does: the rate ends at 0.
    """
    plain = build_denoiser(earlier["gen2res"])
    recipe.check_crop(plain.multiple_of)
    model = _with_factors(plain, recipe.rank) if recipe.method == "lora" else plain
    trained = dict.fromkeys(factor_names(model), 1.0) or {"": 1.0}
    return ConstrainStage(
        model.train(), trained, data.val, shrink=recipe.shrink, mirror=recipe.mirror, noisiest=recipe.noisiest
    )


def _with_factors(plain: Denoiser, rank: int) -> Denoiser:
    config: Gen2ResConfig = replace(plain.config, lora=rank)
    model = Denoiser(config)
    factors = {name: value for name, value in model.state_dict().items() if ".factors." in name}
    model.load_state_dict({**plain.state_dict(), **factors})
    return model


CONSTRAIN_STAGE = StageDefinition(
    ConstrainRecipe(steps=1000, batch=16, crop=64, rate=2e-4, warmup=0, ema=0.0, save_every=250), _build
)
