"""What a stage of training brings to the loop, and how it is declared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...models.checkpoints import Checkpoint
from ..data.photos import Pool, TrainingData
from .recipe import Recipe

__all__ = [
    "Arrays",
    "Auxiliary",
    "AuxiliaryNetworks",
    "StageDefinition",
    "TrainingStage",
    "Validation",
    "fixed",
    "stacked",
]

Arrays = dict[str, NDArray[Any]]
R = TypeVar("R", bound=Recipe)

CLIP = 1.0  # largest gradient norm of auxiliary networks
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, per parameter


class Validation(NamedTuple):
    """How the averaged weights do on held-back photos."""

    figures: dict[str, float]
    images: dict[str, Tensor]  # (3, H, W) in [0, 1] by name; written as PNG and to TensorBoard


class TrainingStage(ABC):
    """One stage of one system; it trains all of its model, unless a subclass sets `trained`.

    Every random number (crop, damage, time, noise, dropped code) is drawn in `draw`, with the sample's own generator,
    and reaches `loss` as an array of the batch: the result does not depend on the number of processes, on accumulation
    or on the device. `loss` runs inside a module that DDP or FSDP wraps: every trained parameter takes part in every
    loss, and tensors stay on the device of the batch.

    A stage that learns more than its model has an `auxiliary` as well; see `Auxiliary`.
    """

    kind: str  # of the checkpoints it writes
    config: Any  # dataclass: what is needed to build `model`
    model: nn.Module  # everything that is saved
    trained: dict[str, float]  # submodule of `model` ("" = all) -> share of the learning rate; the rest is frozen
    frozen: nn.ModuleList  # used, but neither trained nor saved; the loop moves it to the device

    def __init__(self, config: Any, model: nn.Module, *frozen: nn.Module, **facts: Any) -> None:
        self.config, self.model = config, model
        self.trained = {"": 1.0}
        self.frozen = nn.ModuleList(frozen)
        self._facts = facts

    @abstractmethod
    def draw(self, pool: Pool, crop: int, rng: np.random.Generator) -> Arrays:
        """One sample, without a batch axis, from `rng` alone; called in a worker process. The loop stacks samples."""

    @abstractmethod
    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars by name, means over the batch; the one called "loss" is minimised."""

    @abstractmethod
    def validate(self, model: nn.Module) -> Validation:
        """Judge `model`, a copy with the averaged weights on the loop's device; no gradients, main process only."""

    def facts(self) -> dict[str, Any]:
        """Measurements that a checkpoint should carry."""
        return self._facts


@dataclass(frozen=True)
class StageDefinition(Generic[R]):
    """How a stage is trained by default, and how it is built."""

    recipe: R  # for a model of size mobile
    # from a recipe, earlier checkpoints by kind, and photos
    build: Callable[[R, Mapping[str, Checkpoint], TrainingData], TrainingStage]


class Auxiliary(Protocol):
    """What a stage learns next to its model, at its own pace: critics, a slower copy, the next teacher of a chain.

    Its state is a part of the resume state, not of the checkpoint.
    """

    networks: nn.ModuleList  # the loop moves them to the device

    def step(self, done: int, batch: dict[str, Tensor], shared: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Learn from a part of the batch of step `done`, after its optimiser step; scalars for the log.

        shared: the mean of a tensor over all processes, for gradients; every process calls it equally often.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Every number that the next step depends on."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        ...


def stacked(samples: Sequence[Arrays]) -> dict[str, Tensor]:
    """Samples as a batch: each array with a new first axis."""
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


@contextmanager
def fixed(*modules: nn.Module) -> Generator[None]:
    """Within, gradients pass through the modules but do not reach their parameters."""
    networks = nn.ModuleList(modules).requires_grad_(False)
    try:
        yield
    finally:
        networks.requires_grad_(True)


class AuxiliaryNetworks:
    """Networks with an AdamW for each list of parameters; a subclass adds `step`, see `Auxiliary`.

    learnt: parameters of the networks with their learning rate, one optimiser for each entry.
    """

    def __init__(self, networks: Iterable[nn.Module], learnt: Iterable[tuple[Iterable[nn.Parameter], float]]) -> None:
        self.networks = nn.ModuleList(networks)
        self.optimizers = [
            torch.optim.AdamW(parameters, lr=rate, betas=(0.5, 0.99), weight_decay=0.0) for parameters, rate in learnt
        ]

    def state(self) -> dict[str, Tensor]:
        """As in `Auxiliary`."""
        tensors = {f"net.{name}": tensor for name, tensor in self.networks.state_dict().items()}
        for name, parameter, optimizer in self._learnt():
            tensors |= {f"{key}.{name}": value for key, value in optimizer.state[parameter].items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As in `Auxiliary`."""
        self.networks.load_state_dict({n: tensors[f"net.{n}"] for n in self.networks.state_dict()})
        for name, parameter, optimizer in self._learnt():
            moments = {key: tensors[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in tensors}
            on = parameter.device
            optimizer.state[parameter] = {k: v if k == "step" else v.to(on) for k, v in moments.items()}

    def _learnt(self) -> Iterable[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
        """Each learnt parameter with its name and optimiser."""
        names = {id(p): name for name, p in self.networks.named_parameters()}
        for optimizer in self.optimizers:
            for parameter in optimizer.param_groups[0]["params"]:
                yield names[id(parameter)], parameter, optimizer

    def descend(self, losses: Iterable[Tensor], shared: Callable[[Tensor], Tensor]) -> None:
        """One step of each optimiser on its loss, with gradients averaged over the processes by `shared`."""
        for loss, optimizer in zip(losses, self.optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            parameters = [p for p in optimizer.param_groups[0]["params"] if p.grad is not None]
            for parameter in parameters:
                parameter.grad = shared(parameter.grad)
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
