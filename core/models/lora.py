"""LoRA: low-rank factors beside frozen weights (Hu et al., ICLR 2022).

W' = W + up down, with `down` (rank, inputs) random and `up` (outputs, rank) zero at first, so a fresh model is the
unchanged one. A convolution's kernel is taken as a matrix (outputs, inputs * height * width). The product is added in
weight space: training costs one convolution, and merging is exact. The names of the frozen weights stay. Where models
share the frozen weights, the two are deployed side by side: a convolution beside a low-rank one.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import RepConv

__all__ = [
    "Factors",
    "LoraConv2d",
    "LoraLinear",
    "LoraRepConv",
    "LowRank",
    "add_lora",
    "factor_names",
    "is_factor",
    "merge_lora",
]

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


class LoraRepConv(RepConv):
    """A re-parameterised convolution with `factors` beside the kernel that its branches amount to."""

    factors: Factors

    def kernel(self) -> Tensor:
        """The kernel that all three amount to, (outputs, inputs, 3, 3)."""
        return super().kernel() + self.factors().view_as(self.direct.weight)

    def base(self) -> nn.Conv2d:
        """The convolution without the factors."""
        conv = self.merged()
        conv.weight.data.copy_(super().kernel().detach())
        return conv


class LowRank(nn.Module):
    """conv(x) + up(down(x)), what a convolution with factors computes, its own weights left as they are."""

    def __init__(self, layer: LoraConv2d | LoraRepConv) -> None:
        super().__init__()
        plain = layer.base() if isinstance(layer, LoraRepConv) else _plain(layer)
        down, up = layer.factors.down, layer.factors.up
        (outputs, rank), inputs = up.shape, plain.in_channels
        assert plain.groups == 1, "a grouped convolution and its factors are no two convolutions"
        self.conv = plain
        shape = plain.kernel_size, plain.stride, plain.padding
        self.down = nn.Conv2d(inputs, rank, *shape, bias=False)  # type: ignore[arg-type]
        self.up = nn.Conv2d(rank, outputs, 1, bias=False)
        self.down.weight.data.copy_(down.detach().view_as(self.down.weight))
        self.up.weight.data.copy_(up.detach().view_as(self.up.weight))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns (N, outputs, H', W')."""
        return self.conv(x) + self.up(self.down(x))


def _plain(layer: LoraConv2d) -> nn.Conv2d:
    """The convolution without its factors."""
    plain = copy.deepcopy(layer)
    del plain.factors
    plain.__class__ = nn.Conv2d  # type: ignore[assignment]
    return plain


ADAPTED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: LoraConv2d,
    nn.Linear: LoraLinear,
    RepConv: LoraRepConv,
}
PLAIN = {adapted: plain for plain, adapted in ADAPTED.items()}


def add_lora(module: nn.Module, rank: int) -> None:
    """Give every convolution and linear layer of `module` factors of `rank`, in place.

    A layer that is thinner than `rank` gets factors of its own full rank; the branches of a re-parameterised
    convolution get one pair together. Only the class of a layer changes: it keeps its tensors, its settings and its
    names.
    """
    branches = {layer.direct for layer in module.modules() if isinstance(layer, RepConv)}
    for layer in [layer for layer in module.modules() if type(layer) in ADAPTED and layer not in branches]:
        weight = layer.direct.weight if isinstance(layer, RepConv) else layer.weight
        assert isinstance(weight, Tensor)
        outputs, inputs = weight.flatten(1).shape
        layer.factors = Factors(inputs, outputs, min(rank, inputs, outputs)).to(weight)
        layer.__class__ = ADAPTED[type(layer)]  # type: ignore[assignment]


def factor_names(module: nn.Module) -> list[str]:
    """The names of all `Factors` in `module`: what a LoRA stage trains."""
    return [name for name, child in module.named_modules() if isinstance(child, Factors)]


def is_factor(name: str) -> bool:
    """Whether a tensor of this name is one of `Factors`, not of the weights beside them."""
    return "factors" in name.split(".")


def merge_lora(module: Module) -> Module:
    """A copy of `module` with the factors multiplied into plain layers (exact but for rounding)."""
    module = copy.deepcopy(module)
    for layer in module.modules():
        plain = PLAIN.get(type(layer))
        if plain is not None:
            weight = layer.direct.weight if isinstance(layer, LoraRepConv) else layer.weight
            assert isinstance(weight, Tensor)
            with torch.no_grad():
                weight.add_(layer.factors().view_as(weight))  # type: ignore[operator]
            del layer.factors
            layer.__class__ = plain  # type: ignore[assignment]
    return module
