"""What a distillation method needs of a system; `dtpm`, `gen2res` and `diffir` implement it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.random import Generator
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.sampling.steps import Steps, thinned
from ..core.training.data.photos import Pool, planar
from ..core.training.evaluation.score import EvaluationCase
from ..core.training.loop.stage import Arrays

__all__ = ["Denoised", "DistillSystem", "Problem", "Sampler", "photo_arrays", "sampler"]

TEACHER_STEPS = 50  # of a teacher that is not a student itself


class Sampler(Protocol):
    """The system's deterministic sampler."""

    def __call__(self, model: nn.Module, start: Tensor, steps: Steps, passed: list[Tensor] | None = None) -> Tensor:
        """The end of the chain; the states at the start of each step are appended to `passed`."""
        ...


def sampler(predict: Callable[[nn.Module, Tensor, Tensor], Tensor], walk: Callable[..., Tensor]) -> Sampler:
    """A `Sampler` over predict(model, state, t (N,)); walk: (denoise, start, levels) -> end, one of core's samplers."""

    def sample(model: nn.Module, start: Tensor, steps: Steps, passed: list[Tensor] | None = None) -> Tensor:
        def denoise(x: Tensor, step: int) -> Tensor:
            if passed is not None:
                passed.append(x)
            return predict(model, x, x.new_full((len(x),), steps.times[step])).float()

        return walk(denoise, start, steps.levels)

    return sample


class Denoised(NamedTuple):
    """A network's estimates from a state at a level, of the state's shape."""

    clean: Tensor  # the end of the chain
    eps: Tensor  # the noise that goes with it


@dataclass(frozen=True)
class Problem:
    """A batch as seen by a chain. States are (N, ...), images (N, 3, H, W) in [0, 1]; all float32."""

    start: Tensor  # the state at the first level
    truth: Tensor  # the end of a perfect chain
    clean: Tensor  # the true image
    denoise: Callable[[nn.Module, Tensor, Tensor, Tensor], Denoised]  # (model, state, alpha_bar (N,), t (N,))
    sample: Sampler
    compose: Callable[[nn.Module, Tensor], Tensor]  # (model, end of a chain) -> image at full strength, not clipped


def photo_arrays(pool: Pool, crop: int, rng: Generator, task: str) -> tuple[Any, Arrays]:
    """A random crop of `pool`, and "clean", "damaged" and "noise", (3, crop, crop) each, drawn from `rng` in turn."""
    cut = pool.crop(crop, rng, task)
    clean = planar(cut.clean)
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    return cut, {"clean": clean, "damaged": planar(cut.damaged), "noise": noise}


class DistillSystem(ABC):
    """One trained model of a system: the teacher, and how to build its students.

    The inputs of the chain (the predictor's output, codes) come from the teacher for teacher and student alike: methods
    train the network that walks the chain.
    """

    kind: ClassVar[str]  # of its checkpoints
    source: str  # sha256 of the teacher's checkpoint
    config: Any  # dataclass: how to build the model
    teacher: Any  # the network: frozen, in evaluation mode
    frozen: nn.ModuleList  # teacher, encoders: moved to the device by the loop
    own: Steps | None  # the only steps that the teacher supports; None if it learnt all levels
    trained: dict[str, float]  # parts of a student that learn -> share of the rate
    pictured: dict[str, float]  # all parts that are called on images -> share of the rate where they learn in int8
    task: str  # what damages the photos
    multiple_of: int  # of the sides of a crop
    thumbnail_side: int = 0  # of the views of whole photos that it takes, pixels; 0 for none

    def student(self, count: int) -> nn.Module:
        """A copy of the teacher, for `count` steps."""
        del count
        return copy.deepcopy(self.teacher)

    def student_config(self, count: int) -> Any:
        """The configuration of a student of `count` steps."""
        del count
        return self.config

    def steps(self, count: int) -> Steps:
        """`count` steps of the teacher's sampler; 0 for its own number, or TEACHER_STEPS."""
        if self.own:
            return thinned(self.own, count or self.own.step_count)
        return self.spread(count or TEACHER_STEPS)

    def student_steps(self, count: int, teacher_count: int) -> Steps:
        """The `count` steps of a student of the teacher in `teacher_count` steps: some of the teacher's levels."""
        return thinned(self.steps(teacher_count), count)

    def levels(self) -> Steps:
        """Every level that the teacher learnt, the noisiest first. Raises UsageError for a student, which knows few."""
        if self.own:
            raise UsageError(
                "the teacher is itself distilled and only supports its own timesteps; give the model that it was made "
                "from, and the student with --from"
            )
        return self.spread(0)

    @abstractmethod
    def spread(self, count: int) -> Steps:
        """`count` of the levels that the system's training covers; 0 for all of them."""

    @abstractmethod
    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """One sample, from `rng` only; `problem` takes a batch of them."""

    @abstractmethod
    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """A batch as seen by a chain."""

    @abstractmethod
    def restored(self, model: nn.Module, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """The images of a batch as `restore` restores them, but not clipped, and with gradients to all of `model`."""

    @abstractmethod
    def restore(self, model: nn.Module, steps: Steps, case: EvaluationCase) -> Tensor:
        """A held-back photo as a user gets it, (1, 3, H, W)."""

    @abstractmethod
    def timed(self, model: nn.Module, steps: Steps, side: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """Two functions to time, with re-parameterised branches and low-rank factors merged.

        The first restores an image of `side` x `side` pixels; the second only runs its chain, the part whose cost grows
        with the number of steps.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The system's facts for a student's checkpoint."""
