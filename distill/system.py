"""What a method of distillation needs of a system; `dtpm`, `gen2res` and `diffir` offer it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.random import Generator
from torch import Tensor, nn

from ..core.sampling.steps import Steps
from ..core.training.data.photos import Pool
from ..core.training.evaluation.score import EvaluationCase
from ..core.training.loop.stage import Arrays

__all__ = ["ONLY_OWN", "Denoised", "Problem", "Sample", "System"]

ONLY_OWN = (
    "the teacher is a student itself and knows its own levels alone; give the model that it was made from, and the "
    "student with --from"
)


class Sample(Protocol):
    """The system's deterministic sampler."""

    def __call__(self, model: nn.Module, start: Tensor, steps: Steps, passed: list[Tensor] | None = None) -> Tensor:
        """The end of the chain; the states at the start of each step are appended to `passed`."""
        ...


class Denoised(NamedTuple):
    """What a network makes of a state at a level: states of the same shape."""

    clean: Tensor  # its estimate of the end of the chain
    eps: Tensor  # the noise that goes with it


@dataclass(frozen=True)
class Problem:
    """A batch as chains see it. States are (N, ...), pictures (N, 3, H, W) in [0, 1]; all float32.

    denoise: (model, state, bar (N,), t (N,)) -> `Denoised`. compose: (model, end of a chain) -> picture, at full
    strength, not clipped.
    """

    start: Tensor  # the state at the first level
    truth: Tensor  # the end of a perfect chain
    clean: Tensor  # the true picture
    denoise: Callable[[nn.Module, Tensor, Tensor, Tensor], Denoised]
    sample: Sample
    compose: Callable[[nn.Module, Tensor], Tensor]


class System(Protocol):
    """One trained model of a system: the teacher, and what its students are made of.

    What the chain is conditioned on (the predictor, the codes) is the teacher's for teacher and student: methods train
    what walks the chain.
    """

    kind: str  # of its checkpoints
    source: str  # sha256 of the teacher's checkpoint
    config: Any  # dataclass: what is needed to build the model
    frozen: nn.ModuleList  # teacher, encoders: moved to the device by the loop
    own: Steps | None  # the steps that the model was made for and cannot leave; None if it learnt all levels
    trained: dict[str, float]  # parts of a student that learn -> share of the rate
    pictured: dict[str, float]  # all parts that are called on pictures -> share of the rate where they learn in 8 bits
    task: str  # what damages the photos
    multiple_of: int  # of the sides of a crop
    thumbnail_side: int  # of the views of whole photos that it takes, pixels; 0 for none

    @property
    def teacher(self) -> nn.Module:
        """Frozen, in evaluation mode."""
        ...

    def student(self, count: int) -> nn.Module:
        """A copy of the teacher, for `count` steps."""
        ...

    def student_config(self, count: int) -> Any:
        """The configuration of a student of `count` steps."""
        ...

    def steps(self, count: int) -> Steps:
        """`count` steps of the teacher's sampler; 0 for its own number, or its system's usual one."""
        ...

    def student_steps(self, count: int, teacher_count: int) -> Steps:
        """The `count` steps of a student of the teacher in `teacher_count` steps: some of the teacher's levels."""
        ...

    def levels(self) -> Steps:
        """Every level that the teacher learnt, the noisiest first. Raises UsageError for a student: it knows few."""
        ...

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """One sample from `rng` alone: what `problem` makes a batch of."""
        ...

    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """A batch as chains see it."""
        ...

    def restored(self, model: nn.Module, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """The pictures of a batch as `restore` restores them, not clipped, every part the model's, with gradients."""
        ...

    def restore(self, model: nn.Module, steps: Steps, case: EvaluationCase) -> Tensor:
        """A held-back photo as a user gets it, (1, 3, H, W)."""
        ...

    def timed(self, model: nn.Module, steps: Steps, side: int) -> Callable[[], Tensor]:
        """The restoration of a picture of `side` x `side` pixels as it is deployed: the time path folded."""
        ...

    def timed_chain(self, model: nn.Module, steps: Steps, side: int) -> Callable[[], Tensor]:
        """Of that restoration the chain alone: what more steps cost more of."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a student's checkpoint carries of its system."""
        ...
