"""What a stage of training brings to the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .photos import Pool

__all__ = ["Arrays", "Aside", "Assisted", "Stage", "Validation"]

Arrays = dict[str, NDArray[Any]]


class Validation(NamedTuple):
    """What the averaged weights make of held-back photos."""

    figures: dict[str, float]
    pictures: dict[str, Tensor]  # (3, H, W) in [0, 1] by name; written as PNG and to TensorBoard


class Stage(Protocol):
    """One stage of one system.

    Every random number (crop, damage, time, noise, dropped code) is drawn in `draw`, with the sample's own generator,
    and reaches `loss` as an array of the batch: what is learnt does not depend on the number of processes, on
    accumulation or on the device. `loss` runs inside a module that DDP or FSDP wraps: every trained parameter takes
    part in every loss, and tensors stay on the device of the batch.
    """

    kind: str  # of the checkpoints it writes
    config: Any  # dataclass: what is needed to build `model`
    model: nn.Module  # everything that is saved
    trained: dict[str, float]  # submodule of `model` ("" = all) -> share of the learning rate; the rest is frozen
    frozen: nn.ModuleList  # used, but neither trained nor saved; the loop moves it to the device

    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """One sample, without a batch axis, from `rng` alone; called in a worker process. The loop stacks samples."""
        ...

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars by name, means over the batch; the one called "loss" is minimised."""
        ...

    def validate(self, model: nn.Module) -> Validation:
        """Judge `model`, a copy with the averaged weights on the loop's device; no gradients, main process only."""
        ...

    def facts(self) -> dict[str, Any]:
        """What training measured and a checkpoint should carry."""
        ...


class Aside(Protocol):
    """What a stage learns beside its model, at its own pace: critics, a slower copy, the next teacher of a chain.

    All of it is part of the resume state, none of it of the checkpoint.
    """

    networks: nn.ModuleList  # the loop moves them to the device

    def step(self, done: int, batch: dict[str, Tensor], shared: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Learn from a part of the batch of step `done`, whose optimiser step was just made; scalars for the log.

        shared: the mean of a tensor over all processes, for gradients; every process calls it as often.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Every number that the next step depends on."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        ...


@runtime_checkable
class Assisted(Protocol):
    """A stage with an `Aside`."""

    aside: Aside
