"""The trained weights of a run, their average and the optimiser's moments, whole or in shards.

FSDP replaces parameters by shards (DTensors). Shards are gathered before they are written, so that a state or a
checkpoint does not depend on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ...errors import TrainingError

__all__ = ["TrainedWeights"]

MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum")  # of AdamW and Muon, per parameter


class TrainedWeights:
    """The trained parameters of `model` after it was prepared, with one exponential moving average each.

    The update is PyTorch's; its `AveragedModel` would also copy and average frozen parts, and knows no shards. All
    processes call the methods together.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.model = model
        self.trained = {_plain(n): p for n, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        states = {p: optimizer.state for optimizer in optimizers for g in optimizer.param_groups for p in g["params"]}
        self._states: dict[Tensor, MutableMapping[Any, Any]] = {p: states[p] for p in self.trained.values()}
        self._averages = [_local(a) for a in self.average.values()]
        self._currents = [_local(p.detach()) for p in self.trained.values()]

    def follow(self, decay: float) -> None:
        """Move the average towards the current weights: a <- decay a + (1 - decay) w."""
        get_ema_multi_avg_fn(decay)(self._averages, self._currents, None)

    def clip(self, norm: float) -> Tensor:
        """Scale the gradients down to a joint norm of at most `norm`, 0 for any; returns the norm before, a scalar."""
        total = nn.utils.clip_grad_norm_(self.trained.values(), norm or math.inf)
        return total.full_tensor() if isinstance(total, DTensor) else total

    def moments(self, parameter: Tensor) -> Mapping[str, Tensor]:
        """The state of a parameter's optimiser; empty before its first gradient."""
        return self._states[parameter].get(parameter, {})

    def unfit(self) -> Tensor:
        """The number of weights, averaged weights and moments of this process that are not finite, a scalar."""
        moments = [_local(t) for p in self.trained.values() for t in self.moments(p).values()]
        tensors = [*self._averages, *self._currents, *moments]
        return torch.stack([(~t.isfinite()).sum() for t in tensors]).sum().float()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Every number that the next step depends on: whole tensors on the CPU, by name."""
        for name, parameter in self.trained.items():
            yield f"weight.{name}", _whole(parameter)
            yield f"average.{name}", _whole(self.average[name])
            for key, value in self.moments(parameter).items():
                yield f"{key}.{name}", _whole(value)
        for name, buffer in self._buffers().items():
            yield f"buffer.{name}", _whole(buffer)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned. Raises TrainingError if it belongs to another model."""
        buffers = self._buffers()
        expected = {f"weight.{name}" for name in self.trained} | {f"buffer.{name}" for name in buffers}
        missing = sorted(expected - set(tensors))
        if missing:
            raise TrainingError(f"the state has no {missing[0]}: it belongs to another model; use a new --out folder")
        for name, parameter in self.trained.items():
            _fill(parameter, tensors[f"weight.{name}"])
            _fill(self.average[name], tensors[f"average.{name}"])
            moments = {key: tensors[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in tensors}
            if moments:  # a parameter without a gradient so far has none
                self._states[parameter][parameter] = {k: _shaped(value, parameter) for k, value in moments.items()}
        for name, buffer in buffers.items():
            buffer.copy_(tensors[f"buffer.{name}"])

    @torch.no_grad()
    def averaged(self, copy: nn.Module | None) -> None:
        """Copy the average and the buffers into `copy`, a plain model of the same kind; None on the other processes."""
        parameters = dict(copy.named_parameters()) if copy is not None else {}
        for name, average in self.average.items():
            whole = _whole(average)
            if copy is not None:
                parameters[name].copy_(whole)
        if copy is not None:
            for name, buffer in copy.named_buffers():
                buffer.copy_(self._buffers()[name])

    def _buffers(self) -> dict[str, Tensor]:
        return {_plain(name): buffer for name, buffer in self.model.named_buffers()}


def _plain(name: str) -> str:
    """The name in a plain model: activation checkpointing adds a level."""
    return name.replace("_checkpoint_wrapped_module.", "")


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _whole(tensor: Tensor) -> Tensor:
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().cpu()


def _shaped(whole: Tensor, like: Tensor) -> Tensor:
    """A copy where the parameter `like` is, sharded as it is; the step counter, a scalar, is never sharded."""
    if isinstance(like, DTensor) and whole.dim() > 0:
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)
    return whole.to(like.device, copy=True)


def _fill(tensor: Tensor, whole: Tensor) -> None:
    tensor.copy_(_shaped(whole, tensor))
