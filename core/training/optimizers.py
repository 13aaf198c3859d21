"""The optimisers of a stage: who trains which of its parameters, and at which peak rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .muon import Muon, is_hidden_kernel
from .recipe import Recipe
from .stage import Stage

__all__ = ["optimizers"]


def optimizers(stage: Stage, recipe: Recipe, *, bf16: bool) -> list[torch.optim.Optimizer]:
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
