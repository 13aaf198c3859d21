"""An `Aside` that learns by optimisers of its own: its state, its steps, and how a stage looks through its networks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["LearningAside", "fixed"]

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
