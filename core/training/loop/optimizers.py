"""The optimisers of a stage: who trains which of its parameters, and at which peak rate.

Muon: momentum whose matrices are made orthogonal before each step (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

For the kernels of hidden convolutions, as matrices (outputs, inputs x height x width). Everything else - biases, linear
layers, depthwise kernels, and the convolutions that join a network to its images - stays with AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from .recipe import Recipe
from .stage import TrainingStage

__all__ = ["Muon", "is_hidden_kernel", "optimizers", "orthogonal"]


def optimizers(stage: TrainingStage, recipe: Recipe, *, bf16: bool) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon where the recipe asks for it and there are kernels for it; all other parameters are frozen.

    The `lr` of each group is its peak rate. bf16: whether Muon computes in it.
    """
    stage.model.requires_grad_(False)
    plain: list[dict[str, Any]] = []
    kernels: list[dict[str, Any]] = []
    for part, share in stage.trained.items():
        named = dict(stage.model.get_submodule(part).requires_grad_(True).named_parameters(prefix=part))
        hidden = {n: p for n, p in named.items() if recipe.optimizer == "muon" and is_hidden_kernel(n, p)}
        plain += _group((p for n, p in named.items() if n not in hidden), recipe.rate * share)
        kernels += _group(hidden.values(), recipe.muon_rate * share)
    made: list[torch.optim.Optimizer] = []
    if plain:
        made.append(torch.optim.AdamW(plain, lr=recipe.rate, weight_decay=recipe.decay, fused=True))
    if kernels:
        dtype = torch.bfloat16 if bf16 else torch.float32
        made.append(Muon(kernels, recipe.muon_rate, weight_decay=recipe.decay, dtype=dtype))
    return made


def _group(parameters: Iterable[nn.Parameter], rate: float) -> list[dict[str, Any]]:
    """One group, none where there is nothing to train."""
    chosen = list(parameters)
    return [{"params": chosen, "lr": rate}] if chosen else []


COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, Jordan's
ITERATIONS = 5
MOMENTUM = 0.95
OUTER = ("intro", "end", "tail")  # modules that join a network to images
THIN = 3  # outputs or inputs of a kernel whose rows or columns are too few to be made orthogonal


def is_hidden_kernel(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains the parameter called `name`: a dense kernel, neither thin nor in `intro` or `end`."""
    return parameter.dim() == 4 and min(parameter.shape[:2]) >= THIN and not set(OUTER) & set(name.split("."))


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest orthogonal matrices, roughly: singular values end between 0.7 and 1.2. (N, rows, columns), float32.

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
    Kernels that FSDP has sharded are gathered for it; every process then computes all of them.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], lr: float, *, weight_decay: float = 0.0, dtype: torch.dtype
    ) -> None:
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
                    kernel.sub_(_like(kernel, direction), alpha=rate)

    def _update(self, kernel: Tensor) -> Tensor:
        """Nesterov's momentum of a kernel, whole."""
        assert kernel.grad is not None
        state = self.state[kernel]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(kernel)
        state["momentum"].lerp_(kernel.grad, 1 - MOMENTUM)
        update = kernel.grad.lerp(state["momentum"], MOMENTUM)
        return update.full_tensor() if isinstance(update, DTensor) else update


def _like(kernel: Tensor, direction: Tensor) -> Tensor:
    """`direction` in the shape of the kernel, sharded as it is."""
    shaped = direction.reshape(kernel.shape)
    if isinstance(kernel, DTensor):
        return distribute_tensor(shaped, kernel.device_mesh, kernel.placements)
    return shaped
