"""Which stages of training there are, and what the module of one offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from ..errors import UnknownNameError
from ..models import checkpoints
from .data.photos import Data
from .loop.recipe import Recipe
from .loop.stage import Stage

__all__ = ["SEMANTIC", "SYSTEMS", "StageModule", "stage_module", "thumbnail_side"]

SEMANTIC = "semantic"  # the kind of checkpoint that only models with a semantic code need
SYSTEMS: dict[str, dict[str, str]] = {  # system -> stage -> its module
    "dtpm": {
        "semantic": ".dtpm.semantic",
        "predictor": ".dtpm.predictor",
        "prior": ".dtpm.prior",
        "adapters": ".dtpm.adapters",
        "finish": ".dtpm.finish",
        "delta": ".dtpm.delta",
    },
    "diffir": {
        "pretrain": ".diffir.pretrain",
        "warmup": ".diffir.warmup",
        "joint": ".diffir.joint",
        "adversarial": ".diffir.adversarial",
    },
    "gen2res": {
        "base": ".gen2res.base",
        "constrain": ".gen2res.constrain",
    },
}


class StageModule(Protocol):
    """What the module of a stage offers."""

    RECIPE: Recipe  # the default, of mobile size
    EARLIER: tuple[str, ...]  # kinds of the checkpoints it starts from
    STRUCTURES: bool  # whether the photos need structure layers
    build: Callable[[Any, Mapping[str, checkpoints.Checkpoint], Data], Stage]


def stage_module(system: str, stage: str) -> StageModule:
    """Import the module of a stage. Raises UnknownNameError for a system or stage that does not exist."""
    if system not in SYSTEMS:
        raise UnknownNameError("system", system, SYSTEMS)
    if stage not in SYSTEMS[system]:
        raise UnknownNameError(f"stage of {system}", stage, SYSTEMS[system])
    return import_module(SYSTEMS[system][stage], __package__)  # type: ignore[return-value]


def thumbnail_side(recipe: Recipe) -> int:
    """Of the views of whole photos: what the semantic encoder takes, 0 for systems that have none."""
    semantic = getattr(getattr(recipe, "model", None), "semantic", None)
    return semantic.size if semantic else 0
