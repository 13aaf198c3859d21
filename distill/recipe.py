"""What the recipes of all methods of step distillation have in common."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.training.loop.recipe import Recipe

__all__ = ["DistillRecipe"]


@dataclass(frozen=True)
class DistillRecipe(Recipe):
    """How to make a student that samples in few steps."""

    sampling_steps: int = 4  # of the student
    teacher_steps: int = 0  # of the teacher's sampler; 0: its own, if it is a student itself, else its system's usual
    task: str = ""  # what damages the photos; "": what the teacher was trained for
    prior_rate: float = 1.0  # DTPM: share of the rate at which the prior learns; 0 keeps it as all tasks share it

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("sampling_steps")
