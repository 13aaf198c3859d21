"""Parameters and multiply-adds of each part of a system, counted without allocating any of them."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import UnknownNameError
from ..pack.systems import SYSTEMS
from .blocks import merge_branches

__all__ = ["ModelCosts", "count"]


class ModelCosts(NamedTuple):
    """What one configuration costs, by part."""

    parameters: dict[str, int]
    macs_256: dict[str, int]  # multiply-adds of one call, for one input image of 256 x 256 pixels


def count(model: str) -> ModelCosts:
    """The costs of "system:size", such as "dtpm:mobile", as it is deployed: re-parameterised branches are merged.

    The input is a 256 x 256 image; for super-resolution that is the small image, for a semantic encoder its thumbnail.
    Multiply-adds are those of convolutions and matrix products. Raises UnknownNameError for another system or size.
    """
    system, _, size = model.partition(":")
    if system not in SYSTEMS:
        raise UnknownNameError("system", system, [f"{name}:SIZE" for name in SYSTEMS])
    module = import_module(f".{system}", __package__)
    if size not in module.CONFIGS:
        raise UnknownNameError("model", model, [f"{system}:{name}" for name in module.CONFIGS])
    with torch.device("meta"), torch.no_grad():
        parts = module.cost_parts(module.CONFIGS[size])
        merged = {name: (merge_branches(part), inputs) for name, (part, inputs) in parts.items()}
        return ModelCosts(
            {name: sum(p.numel() for p in part.parameters()) for name, (part, _) in merged.items()},
            {name: _macs(part, inputs) for name, (part, inputs) in merged.items()},
        )


def _macs(part: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    with FlopCounterMode(display=False) as counter:
        part(*inputs)
    return counter.get_total_flops() // 2
