"""What a distillation works on: its recipe, chains with a noise level per sample, and what a method needs of a system.

`dtpm`, `gen2res` and `diffir` implement `DistillSystem`. The samplers of core take plain floats, one level for all; in
training each sample has its own. States are (N, ...), `alpha_bar` is (N,), the share of signal variance.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from ..core.models.checkpoints import Checkpoint
from ..core.sampling.steps import Steps, own_steps, thinned
from ..core.training.data.photos import Crop, Pool, planar
from ..core.training.evaluation.score import EvaluationCase
from ..core.training.loop.recipe import Recipe
from ..core.training.loop.stage import Arrays

__all__ = [
    "Denoised",
    "DistillRecipe",
    "DistillSystem",
    "Problem",
    "clean_and_eps",
    "implied_clean",
    "snr_loss",
    "state_at",
]

TEACHER_STEPS = 50  # of a teacher that is not a student itself


@dataclass(frozen=True)
class DistillRecipe(Recipe):
    """How to make a student that samples in few steps."""

    crop: int = 64
    ema: float = 0.995
    sampling_steps: int = 4  # of the student
    teacher_steps: int = 0  # of the teacher's sampler; 0: its own, if it is a student itself, else TEACHER_STEPS
    task: str = ""  # what damages the photos; "": the task that the teacher was trained for
    prior_rate: float = 1.0  # DTPM: share of the rate at which the prior learns; 0 keeps it as all tasks share it
    counts = (*Recipe.counts, "sampling_steps")


class Denoised(NamedTuple):
    """A network's estimates from a state at a level, of the state's shape."""

    clean: Tensor  # the end of the chain
    eps: Tensor  # the noise that goes with it


def clean_and_eps(x: Tensor, predicted: Tensor, alpha_bar: Tensor, predicts: str) -> Denoised:
    """x0 and eps from a state and a prediction of "v", "x0" or "eps"; as `samplers.PREDICTIONS`, per sample."""
    signal, noise = _roots(alpha_bar, x)
    predicted = predicted.to(x.dtype)
    if predicts == "v":
        return Denoised(signal * x - noise * predicted, noise * x + signal * predicted)
    if predicts == "x0":
        return Denoised(predicted, (x - signal * predicted) / noise)
    assert predicts == "eps", predicts
    return Denoised((x - noise * predicted) / signal, predicted)


def state_at(clean: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """The state at a level: sqrt(alpha_bar) clean + sqrt(1 - alpha_bar) eps (Song et al. 2021, Eq. 12)."""
    signal, noise = _roots(alpha_bar, clean)
    return signal * clean + noise * eps


def implied_clean(x: Tensor, reached: Tensor, alpha_bar: Tensor, following: Tensor) -> Tensor:
    """The x0 with which one DDIM step takes the state x at `alpha_bar` to the state `reached` at `following`.

    Salimans and Ho, "Progressive Distillation" (2022), Appendix G: (reached - r x) / (a' - r a), r = s' / s, where a, s
    are the roots of signal and noise at the two levels. following > alpha_bar.
    """
    signal, noise = _roots(alpha_bar, x)
    next_signal, next_noise = _roots(following, x)
    ratio = next_noise / noise
    return (reached - ratio * x) / (next_signal - ratio * signal)


def snr_loss(clean: Tensor, target: Tensor, alpha_bar: Tensor) -> Tensor:
    """Mean squared error of x0, weighted by SNR + 1 = 1 / (1 - alpha_bar): the error of v, whatever is predicted."""
    errors = (clean.float() - target).square().flatten(1).mean(dim=1)
    return (errors / (1 - alpha_bar)).mean()


def _roots(alpha_bar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha_bar = alpha_bar.reshape(-1, *[1] * (like.dim() - 1))
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


@dataclass(frozen=True)
class Problem:
    """A batch as seen by a chain. States are (N, ...), images (N, 3, H, W) in [0, 1]; all float32."""

    start: Tensor  # the state at the first level
    truth: Tensor  # the end of a perfect chain
    clean: Tensor  # the true image
    predict: Callable[[Any, Tensor, Tensor], Tensor]  # (model, state, t (N,)): what the network predicts
    denoise: Callable[[Any, Tensor, Tensor, Tensor], Denoised]  # (model, state, alpha_bar (N,), t (N,))
    sampler: Callable[..., Tensor]  # the system's deterministic one, of core: (denoise, start, levels) -> end
    compose: Callable[[Any, Tensor], Tensor]  # (model, end of a chain) -> image at full strength, not clipped

    def sample(self, model: nn.Module, steps: Steps, passed: list[Tensor] | None = None) -> Tensor:
        """The end of the chain; the states at the start of each step are appended to `passed`."""

        def denoise(x: Tensor, step: int) -> Tensor:
            if passed is not None:
                passed.append(x)
            return self.predict(model, x, x.new_full((len(x),), steps.times[step])).float()

        return self.sampler(denoise, self.start, steps.levels)

    @torch.no_grad()
    def walk(self, model: nn.Module, x: Tensor, levels: Tensor, times: Tensor, places: Iterable[Tensor]) -> Tensor:
        """Steps of DDIM from the state x, without gradients; places: of the sample's levels (N,), one per step."""
        for i in places:
            found = self.denoise(model, x, levels[i], times[i])
            x = state_at(*found, levels[i + 1])
        return x


class DistillSystem(ABC):
    """One trained model of a system: the teacher, and how to build its students.

    The inputs of the chain (the predictor's output, codes) come from the teacher for teacher and student alike: methods
    train the network that walks the chain. A `model` is a network of the teacher's class.
    """

    kind: str  # of its checkpoints
    source: str  # sha256 of the teacher's checkpoint
    teacher: Any  # the network: frozen, in evaluation mode
    config: Any  # dataclass: how to build it
    frozen: nn.ModuleList  # teacher, encoders: moved to the device by the loop
    own: Steps | None  # the only steps that the teacher supports; None if it learnt all levels
    task: str  # what damages the photos
    trained: dict[str, float]  # parts of a student that learn -> share of the rate
    pictured: dict[str, float]  # all parts that are called on images -> share of the rate where they learn in int8
    facts: dict[str, Any]  # what a student's checkpoint says of the system
    thumbnail_side: int = 0  # of the views of whole photos that it takes, pixels; 0 for none

    def __init__(self, checkpoint: Checkpoint, source: str, teacher: Any, task: str) -> None:
        self.kind, self.source, self.task = checkpoint.kind, source, task
        self.teacher, self.config = teacher.eval().requires_grad_(False), teacher.config
        self.frozen = nn.ModuleList([self.teacher])
        self.own = own_steps(checkpoint.facts)

    def student(self, count: int) -> nn.Module:
        """A copy of the teacher, for `count` steps."""
        del count
        return copy.deepcopy(self.teacher)

    def steps(self, count: int) -> Steps:
        """`count` steps of the teacher's sampler; 0 for its own number, or TEACHER_STEPS."""
        if self.own:
            return thinned(self.own, count or self.own.step_count)
        return self.spread(count or TEACHER_STEPS)

    def student_steps(self, count: int, teacher: Steps) -> Steps:
        """The `count` steps of a student of the teacher in its steps `teacher`: some of the teacher's levels."""
        return thinned(teacher, count)

    @abstractmethod
    def spread(self, count: int) -> Steps:
        """`count` of the levels that the system's training covers, the noisiest first; 0 for all of them."""

    def photo(self, pool: Pool, crop: int, rng: Generator) -> tuple[Crop, Arrays]:
        """A random crop, and "clean", "damaged" and "noise", (3, crop, crop) each, drawn from `rng` in turn."""
        cut = pool.crop(crop, rng, self.task)
        clean = planar(cut.clean)
        noise = rng.standard_normal(clean.shape, dtype=np.float32)
        return cut, {"clean": clean, "damaged": planar(cut.damaged), "noise": noise}

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """One sample, from `rng` only; `problem` takes a batch of them. By default the arrays of `photo`."""
        return self.photo(pool, crop, rng)[1]

    @abstractmethod
    def problem(self, batch: dict[str, Tensor]) -> Problem:
        """A batch as seen by a chain."""

    def restored(self, model: Any, batch: dict[str, Tensor], steps: Steps) -> Tensor:
        """The images of a batch as `restore` restores them, but not clipped, and with gradients to all of `model`."""
        problem = self.problem(batch)
        return problem.compose(model, problem.sample(model, steps))

    @abstractmethod
    def restore(self, model: Any, steps: Steps, case: EvaluationCase) -> Tensor:
        """A held-back photo as a user gets it, (1, 3, H, W)."""

    @abstractmethod
    def timed(self, model: Any, steps: Steps, side: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """Two functions to time, with re-parameterised branches and low-rank factors merged.

        The first restores an image of `side` x `side` pixels; the second only runs its chain, the part whose cost grows
        with the number of steps.
        """
