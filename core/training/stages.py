"""The stages of training: for each one the checkpoints it starts from, and where it is defined.

Nothing here imports PyTorch: `pocketprior train --help` reads this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import UnknownNameError

if TYPE_CHECKING:
    from .loop.stage import StageDefinition

__all__ = ["MODEL_SIZES", "SEMANTIC", "SYSTEMS", "StageEntry", "find_stage"]

SEMANTIC = "semantic"  # the kind of checkpoint that only models with a semantic code need
MODEL_SIZES = {  # the names in CONFIGS of `core.models`
    "dtpm": ("tiny", "mobile", "large", "base", "paper"),
    "diffir": ("deblur", "sr", "sr2", "sr1", "inpainting", "inpainting-challenge", "mobile"),
    "gen2res": ("paper", "base", "mobile"),
}


@dataclass(frozen=True)
class StageEntry:
    """One stage of a system."""

    definition: str  # "module:NAME_STAGE" of its StageDefinition
    earlier: tuple[str, ...] = ()  # kinds of the checkpoints it starts from
    structures: bool = False  # whether the photos need structure layers
    sized: bool = True  # whether its recipe has a `model`
    tasked: bool = True  # whether its recipe has a `task`

    def load(self) -> StageDefinition[Any]:
        """Import the definition. Raises ModuleNotFoundError without PyTorch."""
        module, _, name = self.definition.partition(":")
        return getattr(import_module(module, __package__), name)


SYSTEMS: dict[str, dict[str, StageEntry]] = {
    "dtpm": {
        "semantic": StageEntry(".dtpm.prior:SEMANTIC_STAGE", tasked=False),
        "predictor": StageEntry(".dtpm.task:PREDICTOR_STAGE"),
        "prior": StageEntry(".dtpm.prior:PRIOR_STAGE", (SEMANTIC,), structures=True, tasked=False),
        "adapters": StageEntry(".dtpm.task:ADAPTERS_STAGE", (SEMANTIC, "prior", "predictor")),
        "finish": StageEntry(".dtpm.task:FINISH_STAGE", (SEMANTIC, "dtpm")),
        "delta": StageEntry(".dtpm.task:DELTA_STAGE", ("dtpm",)),
    },
    "diffir": {
        "pretrain": StageEntry(".diffir.phases:PRETRAIN_STAGE"),
        "warmup": StageEntry(".diffir.phases:WARMUP_STAGE", ("diffir-pretrain",)),
        "joint": StageEntry(".diffir.phases:JOINT_STAGE", ("diffir-pretrain", "diffir-warmup")),
        "adversarial": StageEntry(".diffir.phases:ADVERSARIAL_STAGE", ("diffir-pretrain", "diffir")),
    },
    "gen2res": {
        "base": StageEntry(".gen2res.base:BASE_STAGE", tasked=False),
        "constrain": StageEntry(".gen2res.base:CONSTRAIN_STAGE", ("gen2res",), sized=False, tasked=False),
    },
}


def find_stage(system: str, stage: str) -> StageEntry:
    """The entry of a stage. Raises UnknownNameError for a system or stage that does not exist."""
    if system not in SYSTEMS:
        raise UnknownNameError("system", system, SYSTEMS)
    if stage not in SYSTEMS[system]:
        raise UnknownNameError(f"stage of {system}", stage, SYSTEMS[system])
    return SYSTEMS[system][stage]
