"""A plan: the precision of every layer, the pack that it was made for, and its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import PackError, UsageError
from ...core.pack.json import as_text, as_tree, decode, parse
from ..targets.weights import WeightLayer, offered

__all__ = ["PrecisionPlan", "check_plan", "load_plan"]

PLAN_FORMAT = 1


@dataclass(frozen=True)
class PrecisionPlan:
    """The file that a search writes; its field names are the format."""

    format: int
    made_for: str  # sha256 over the graphs and their ranges
    samples: str  # sha256 over the photos of the search
    objective: str  # "size" or "speed"
    budget_db: float  # PSNR to the float pack that the worst photo must keep
    expected_db: float  # what the model predicts for it
    levels: Mapping[str, str]  # layer -> precision
    weights: Mapping[str, str]  # layer -> sha256 of its float weights: a plan fits one model only

    def text(self) -> str:
        """JSON; the same plan always gives the same bytes."""
        return as_text(as_tree(self))

    @property
    def hash(self) -> str:
        """sha256 (hex) of the text."""
        return hashlib.sha256(self.text().encode()).hexdigest()


def load_plan(path: Path) -> PrecisionPlan:
    """Read a plan. Raises PackError for a file that is not a plan, UsageError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"the plan '{path}' cannot be read ({error}); give a file that 'quantize' wrote") from error
    plan = decode(PrecisionPlan, parse(text, str(path)), str(path))
    if plan.format != PLAN_FORMAT:
        raise PackError(f"{path}: the plan has format {plan.format}, this version reads {PLAN_FORMAT}; search again")
    return plan


def check_plan(plan: PrecisionPlan, layers: Sequence[WeightLayer]) -> None:
    """Raise UsageError unless the plan is for exactly these layers, and each can have its precision."""
    known = {layer.name: layer.digest for layer in layers}
    if known != dict(plan.weights) or set(plan.levels) != set(known):
        raise UsageError("the plan was made for another model; search for a plan with this pack")
    for layer in layers:
        if plan.levels[layer.name] not in offered(layer):
            raise UsageError(
                f"the plan has the precision '{plan.levels[layer.name]}' for the layer '{layer.name}'; expected one of "
                f"{', '.join(offered(layer))}"
            )
