"""The trained weights of a run: their optimisers, their average and the optimisers' moments, whole or in shards.

Muon is momentum whose matrices are made orthogonal before each step (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon). It trains the kernels of hidden convolutions, as matrices (outputs, inputs x
height x width). AdamW trains everything else: biases, linear layers, depthwise kernels, and the convolutions that join
a network to its images.

FSDP replaces parameters by shards (DTensors). Shards are gathered before they are written, so that a state or a
checkpoint does not depend on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ...errors import TrainingError
from .recipe import Recipe
from .stage import TrainingStage

__all__ = ["Muon", "TrainedWeights", "is_hidden_kernel", "optimizers", "orthogonal"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, Jordan's
ITERATIONS = 5
MOMENTUM = 0.95
OUTER = ("intro", "end", "tail")  # modules that join a network to images
THIN = 3  # kernels with fewer outputs or inputs have too few rows or columns to be made orthogonal
MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum")  # of AdamW and Muon, per parameter


def optimizers(stage: TrainingStage, recipe: Recipe, *, bf16: bool) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon if the recipe asks for it and there are kernels for it; all other parameters are frozen.

    The `lr` of each group is its peak rate. bf16: whether Muon computes in bf16.
    """
    stage.model.requires_grad_(False)
    plain: list[dict[str, Any]] = []
    kernels: list[dict[str, Any]] = []
    for part, share in stage.trained.items():
        named = dict(stage.model.get_submodule(part).requires_grad_(True).named_parameters(prefix=part))
        hidden = {n: p for n, p in named.items() if recipe.optimizer == "muon" and is_hidden_kernel(n, p)}
        plain.append({"params": [p for n, p in named.items() if n not in hidden], "lr": recipe.rate * share})
        kernels.append({"params": list(hidden.values()), "lr": recipe.muon_rate * share})
    plain, kernels = ([group for group in groups if group["params"]] for groups in (plain, kernels))
    made: list[torch.optim.Optimizer] = []
    if plain:
        made.append(torch.optim.AdamW(plain, lr=recipe.rate, weight_decay=recipe.decay, fused=True))
    if kernels:
        dtype = torch.bfloat16 if bf16 else torch.float32
        made.append(Muon(kernels, recipe.muon_rate, weight_decay=recipe.decay, dtype=dtype))
    return made


def is_hidden_kernel(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains the parameter called `name`: a dense kernel, neither thin nor in `intro` or `end`."""
    return parameter.dim() == 4 and min(parameter.shape[:2]) >= THIN and not set(OUTER) & set(name.split("."))


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Approximately the nearest orthogonal matrices, (N, rows, columns) float32: singular values of 0.7 to 1.2.

    dtype: of the products; bfloat16 is exact enough.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        product = x @ x.mT
        x = a * x + (b * product + c * product @ product) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled by sqrt(max(1, rows / columns)); decoupled weight decay.

    params: groups of 4-dimensional kernels. lr: rate of a group without its own. dtype: of the orthogonalisation.
    Kernels that FSDP has sharded are gathered; every process computes all of them.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, *, weight_decay: float, dtype: torch.dtype) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; kernels of one shape are orthogonalised together."""
        del closure
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for kernel in group["params"]:
                if kernel.grad is not None:
                    update = self._update(kernel).flatten(1)
                    shapes.setdefault((update.shape[0], update.shape[1]), []).append((kernel, update))
            for (rows, columns), pairs in shapes.items():
                directions = orthogonal(torch.stack([update for _, update in pairs]), self.dtype)
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                for (kernel, _), direction in zip(pairs, directions, strict=True):
                    kernel.mul_(1 - group["lr"] * group["weight_decay"])
                    kernel.sub_(_placed(direction.reshape(kernel.shape), kernel), alpha=rate)

    def _update(self, kernel: Tensor) -> Tensor:
        """Nesterov's momentum of a kernel, whole."""
        assert kernel.grad is not None
        state = self.state[kernel]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(kernel)
        state["momentum"].lerp_(kernel.grad, 1 - MOMENTUM)
        update = kernel.grad.lerp(state["momentum"], MOMENTUM)
        return update.full_tensor() if isinstance(update, DTensor) else update


class TrainedWeights:
    """The trained parameters of `model` after it was prepared, with one exponential moving average each.

    The update is PyTorch's; its `AveragedModel` would also copy and average frozen parts, and knows no shards. All
    processes call the methods together.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.model = model
        self.trained = {_plain(n): p for n, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        self._states = {p: made.state for made in optimizers for group in made.param_groups for p in group["params"]}
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
            parameter.copy_(_placed(tensors[f"weight.{name}"], parameter))
            self.average[name].copy_(_placed(tensors[f"average.{name}"], parameter))
            moments = {key: tensors[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in tensors}
            if moments:  # a parameter without a gradient so far has none
                self._states[parameter][parameter] = {k: _placed(v, parameter).clone() for k, v in moments.items()}
        for name, buffer in buffers.items():
            buffer.copy_(tensors[f"buffer.{name}"])

    @torch.no_grad()
    def averaged(self, copy: nn.Module | None) -> None:
        """Copy the average and the buffers into `copy`, a plain model of the same kind; None on the other processes."""
        whole = {name: _whole(average) for name, average in self.average.items()} | self._buffers()
        if copy is not None:
            for name, tensor in (*copy.named_parameters(), *copy.named_buffers()):
                if name in whole:
                    tensor.copy_(whole[name])

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


def _placed(whole: Tensor, like: Tensor) -> Tensor:
    """`whole` on the device of the parameter `like`, sharded as it is; the step counter, a scalar, is never sharded."""
    whole = whole.to(like.device)
    if isinstance(like, DTensor) and whole.dim() > 0:
        return distribute_tensor(whole, like.device_mesh, like.placements)
    return whole
