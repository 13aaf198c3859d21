"""LoRA: low-rank factors added to frozen weights (Hu et al., ICLR 2022).

W' = W + up down, with `down` (rank, inputs) random and `up` (outputs, rank) zero at first, so a fresh model equals the
unchanged one. A convolution's kernel is treated as a matrix (outputs, inputs * height * width). The product is added in
weight space: training costs one convolution, and merging is exact. The names of the frozen weights stay. Models that
share the frozen weights are deployed with both: a convolution and, in parallel, a low-rank one.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Module, RepConv, replace_parts

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


class Factors(nn.Module):
    """The product of two thin matrices, zero at first."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @classmethod
    def of(cls, weight: Tensor, rank: int) -> Self:
        """Factors of at most `rank` for a weight (outputs, ...), in its dtype and on its device."""
        outputs, inputs = weight.flatten(1).shape
        return cls(inputs, outputs, min(rank, inputs, outputs)).to(weight)

    def forward(self) -> Tensor:
        """The product, (outputs, inputs)."""
        return self.up @ self.down


class LoraConv2d(nn.Conv2d):
    """The convolution `plain`, whose tensors it shares, with `factors` added to its kernel."""

    def __init__(self, plain: nn.Conv2d, rank: int) -> None:
        super().__init__(**_settings(plain), device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        self.factors = Factors.of(plain.weight, rank)

    def forward(self, input: Tensor) -> Tensor:
        """As `Conv2d.forward`."""
        return self._conv_forward(input, self.weight + self.factors().view_as(self.weight), self.bias)

    def plain(self) -> nn.Conv2d:
        """The convolution without the factors; it shares the tensors."""
        conv = nn.Conv2d(**_settings(self), device="meta")
        conv.weight, conv.bias = self.weight, self.bias
        return conv

    def merged(self) -> nn.Conv2d:
        """The convolution with the factors added to its weight in place."""
        self.weight.data.add_(self.factors().detach().view_as(self.weight))
        return self.plain()


def _settings(conv: nn.Conv2d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {**{name: getattr(conv, name) for name in names}, "bias": conv.bias is not None}


class LoraLinear(nn.Linear):
    """The linear layer `plain`, whose tensors it shares, with `factors` added to its weight."""

    def __init__(self, plain: nn.Linear, rank: int) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        self.factors = Factors.of(plain.weight, rank)

    def forward(self, input: Tensor) -> Tensor:
        """As `Linear.forward`."""
        return F.linear(input, self.weight + self.factors(), self.bias)

    def merged(self) -> nn.Linear:
        """The layer with the factors added to its weight in place."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        self.weight.data.add_(self.factors().detach())
        linear.weight, linear.bias = self.weight, self.bias
        return linear


class LoraRepConv(RepConv):
    """The re-parameterised convolution `branches`, whose tensors it shares, with `factors` added to its kernel."""

    def __init__(self, branches: RepConv, rank: int) -> None:
        with torch.device("meta"):
            super().__init__(branches.direct.in_channels, branches.direct.out_channels)
        self.direct, self.reduce, self.expand = branches.direct, branches.reduce, branches.expand
        self.factors = Factors.of(branches.direct.weight, rank)

    def kernel(self) -> Tensor:
        """The sum of all three, (outputs, inputs, 3, 3)."""
        return super().kernel() + self.factors().view_as(self.direct.weight)

    def plain(self) -> nn.Conv2d:
        """The merged convolution without the factors."""
        conv = self.merged()
        conv.weight.data.copy_(super().kernel().detach())
        return conv

    def without_factors(self) -> RepConv:
        """The two branches, with the factors added to the direct one in place."""
        self.direct.weight.data.add_(self.factors().detach().view_as(self.direct.weight))
        with torch.device("meta"):
            conv = RepConv(self.direct.in_channels, self.direct.out_channels)
        conv.direct, conv.reduce, conv.expand = self.direct, self.reduce, self.expand
        return conv


class LowRank(nn.Module):
    """conv(x) + up(down(x)): the function of a convolution with factors, whose shared weights stay as they are."""

    def __init__(self, layer: LoraConv2d | LoraRepConv) -> None:
        super().__init__()
        self.conv = layer.plain()
        down, up = layer.factors.down, layer.factors.up
        (outputs, rank), inputs = up.shape, self.conv.in_channels
        assert self.conv.groups == 1, "a grouped convolution and its factors are not two convolutions"
        shape = self.conv.kernel_size, self.conv.stride, self.conv.padding
        self.down = nn.Conv2d(inputs, rank, *shape, bias=False)  # type: ignore[arg-type]
        self.up = nn.Conv2d(rank, outputs, 1, bias=False)
        self.down.weight.data.copy_(down.detach().view_as(self.down.weight))
        self.up.weight.data.copy_(up.detach().view_as(self.up.weight))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns (N, outputs, H', W')."""
        return self.conv(x) + self.up(self.down(x))


def add_lora(module: nn.Module, rank: int) -> None:
    """Give every convolution and linear layer inside `module` factors of `rank`, in place.

    A layer that is thinner than `rank` gets factors of its own full rank; the branches of a re-parameterised
    convolution share one pair. Layers keep their tensors, settings and names.
    """
    adapted: dict[type[nn.Module], Any] = {nn.Conv2d: LoraConv2d, nn.Linear: LoraLinear, RepConv: LoraRepConv}
    replace_parts(module, {plain: partial(made, rank=rank) for plain, made in adapted.items()})


def factor_names(module: nn.Module) -> list[str]:
    """The names of all `Factors` in `module`: the parts that a LoRA stage trains."""
    return [name for name, child in module.named_modules() if isinstance(child, Factors)]


def is_factor(name: str) -> bool:
    """Whether a tensor of this name belongs to `Factors` and not to the frozen weights."""
    return "factors" in name.split(".")


def merge_lora(module: Module) -> Module:
    """A copy of `module` with the factors multiplied into plain layers (exact but for rounding)."""
    module = copy.deepcopy(module)
    replace_parts(
        module, {LoraConv2d: LoraConv2d.merged, LoraLinear: LoraLinear.merged, LoraRepConv: LoraRepConv.without_factors}
    )
    return module
