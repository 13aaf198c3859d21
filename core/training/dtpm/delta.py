"""The initial predictor of a further task: that of a finished DTPM, frozen, with low-rank factors beside its weights.

An app that has the first task then needs the factors and the adapters alone for this one (`export/tasks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import Predictor
from ..data.photos import Data
from .earlier import check_model
from .predictor import PredictorRecipe, PredictorStage

__all__ = ["EARLIER", "RECIPE", "STRUCTURES", "DeltaRecipe", "build"]


@dataclass(frozen=True)
class DeltaRecipe(PredictorRecipe):
    """How to train the factors; `model` is that of the first task."""

    rank: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("rank")


RECIPE = DeltaRecipe(steps=20_000, rate=1.5e-3)
EARLIER = ("dtpm",)
STRUCTURES = False


def build(recipe: DeltaRecipe, earlier: Mapping[str, Checkpoint], data: Data) -> PredictorStage:
    """The stage: at first the predictor of the "dtpm" checkpoint. Raises UsageError for one of the same task."""
    checkpoint = earlier["dtpm"]
    if checkpoint.facts["task"] == recipe.task:
        raise UsageError(
            f"the 'dtpm' checkpoint was trained for '{recipe.task}' itself; name another --task that is to share its "
            "weights"
        )
    check_model("dtpm", checkpoint, recipe.model, "predictor")
    if recipe.model.predictor.lora:
        raise UsageError(
            "the 'dtpm' checkpoint shares the predictor of another task itself; give that one's checkpoint as --dtpm"
        )
    base = Predictor(recipe.model.predictor)
    checkpoint.fill(base, "predictor")
    model = replace(recipe.model, predictor=replace(recipe.model.predictor, lora=recipe.rank))
    stage = PredictorStage(replace(recipe, model=model), data)
    stage.model.load_state_dict(base.state_dict(), strict=False)  # the factors stay as they are
    return stage
