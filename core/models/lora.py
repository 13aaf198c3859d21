"""LoRA: low-rank factors beside frozen weights (Hu et al., ICLR 2022).

W' = W + up down, with `down` (rank, inputs) random and `up` (outputs, rank) zero at first, so a fresh model is the
unchanged one. A convolution's kernel is taken as a matrix (outputs, inputs * height * width). The product is added in
weight space: training costs one convolution, and merging is exact. The names of the frozen weights stay.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Factors", "LoraConv2d", "LoraLinear", "add_lora", "factor_names", "merge_lora"]

Module = TypeVar("Module", bound=nn.Module)


class Factors(nn.Module):
    """The product of two thin matrices, zero at first. Calling it gives (outputs, inputs)."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self) -> Tensor:
        return self.up @ self.down


class LoraConv2d(nn.Conv2d):
    """A plain 2-D convolution with `factors` beside its kernel."""

    factors: Factors

    def kernel(self) -> Tensor:
        """The kernel that both amount to, (outputs, inputs, height, width)."""
        return self.weight + self.factors().view_as(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.kernel(), self.bias)


class LoraLinear(nn.Linear):
    """A linear layer with `factors` beside its weight."""

    factors: Factors

    def kernel(self) -> Tensor:
        """The weight that both amount to, (outputs, inputs)."""
        return self.weight + self.factors()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.kernel(), self.bias)


ADAPTED: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: LoraConv2d, nn.Linear: LoraLinear}


def add_lora(module: nn.Module, rank: int) -> None:
    """Give every convolution and linear layer of `module` factors of `rank`, in place.

    A layer that is thinner than `rank` gets factors of its own full rank. Only the class of a layer changes: it keeps
    its tensors, its settings and its names.
    """
    for layer in list(module.modules()):
        if type(layer) is nn.Conv2d or type(layer) is nn.Linear:
            outputs, inputs = layer.weight.flatten(1).shape
            layer.factors = Factors(inputs, outputs, min(rank, inputs, outputs)).to(layer.weight)
            layer.__class__ = ADAPTED[type(layer)]  # type: ignore[assignment]


def factor_names(module: nn.Module) -> list[str]:
    """The names of all `Factors` in `module`: what a LoRA stage trains."""
    return [name for name, child in module.named_modules() if isinstance(child, Factors)]


def merge_lora(module: Module) -> Module:
    """A copy of `module` with the factors multiplied into plain layers (exact but for rounding)."""
    module = copy.deepcopy(module)
    for layer in module.modules():
        if isinstance(layer, LoraConv2d | LoraLinear):
            with torch.no_grad():
                layer.weight.copy_(layer.kernel())
            del layer.factors
            layer.__class__ = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear  # type: ignore[assignment]
    return module
