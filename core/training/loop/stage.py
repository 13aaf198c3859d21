"""What a stage of training brings to the loop.

An `Aside` that learns by optimisers of its own: its state, its steps, and how a stage looks through its networks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.photos import Pool

__all__ = ["Arrays", "Aside", "Assisted", "LearningAside", "Stage", "Validation", "fixed"]

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


CLIP = 1.0  # largest gradient norm
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, per parameter


@contextmanager
def fixed(*modules: nn.Module) -> Generator[None]:
    """Within, gradients go through the modules and not into them."""
    parameters = [p for module in modules for p in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


class LearningAside:
    """Networks, each list of parameters with an AdamW of its own; a subclass adds `step`, see `Aside`.

    learnt: parameters of the networks with their learning rate, one optimiser for each entry.
    """

    def __init__(self, networks: Iterable[nn.Module], learnt: Iterable[tuple[Iterable[nn.Parameter], float]]) -> None:
        self.networks = nn.ModuleList(networks)
        self.optimizers = [
            torch.optim.AdamW(parameters, lr=rate, betas=(0.5, 0.99), weight_decay=0.0) for parameters, rate in learnt
        ]

    def state(self) -> dict[str, Tensor]:
        """As in `Aside`."""
        tensors = {f"net.{name}": tensor for name, tensor in self.networks.state_dict().items()}
        for name, parameter, optimizer in self._learnt():
            tensors |= {f"{key}.{name}": value for key, value in optimizer.state[parameter].items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As in `Aside`."""
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
        """One step of each optimiser on its loss, with gradients that are `shared` by the processes."""
        for loss, optimizer in zip(losses, self.optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            parameters = [p for p in optimizer.param_groups[0]["params"] if p.grad is not None]
            for parameter in parameters:
                parameter.grad = shared(parameter.grad)
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
