"""Quantization-aware fine-tuning: a student in 8 bits learns to restore what its own float self restores.

Weights of convolutions pass through 8 bits, signed and symmetric per output channel; what goes into a convolution
through 8 bits, unsigned and asymmetric, between bounds that were measured before. Rounding has no gradient: it is
passed straight through (Bengio et al., arXiv 1308.3432), and is zero for what the bounds cut off. The numbers are those
of the level `int8` of `pocketprior quantize`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..core.models.blocks import merge_branches
from ..core.models.steps import Steps
from .system import Problem

__all__ = ["fake_arrays", "fake_weights", "loss", "plain", "quantized"]

TINY = 1e-12  # least scale: of an array that is zero throughout


def fake_weights(weights: Tensor) -> Tensor:
    """Weights (O, ...) as 8 bits hold them: -127 to 127 times a scale per output channel; the gradient is the same."""
    with torch.no_grad():
        scales = weights.abs().amax(dim=tuple(range(1, weights.ndim)), keepdim=True).clamp(min=TINY) / 127
        error = (weights / scales).round() * scales - weights
    return weights + error


def fake_arrays(x: Tensor, least: Tensor, largest: Tensor) -> Tensor:
    """x as unsigned 8 bits hold it between two bounds () with zero between them; no gradient where x is beyond."""
    scale = ((largest - least) / 255).clamp(min=TINY)
    zero = (-least / scale).round()
    inside = x.clamp(-zero * scale, (255 - zero) * scale)
    return inside + ((inside / scale).round() * scale - inside).detach()


class _Weights(nn.Module):
    """`fake_weights` as a parametrization: whoever reads the weights gets them so."""

    def forward(self, weights: Tensor) -> Tensor:
        return fake_weights(weights)


def quantized(student: nn.Module, restore: Callable[[nn.Module], object]) -> nn.Module:
    """A copy of `student` in which every convolution computes on 8 bits, its branches merged; its parameters learn.

    restore: what is run once, in float, to see the least and largest value that goes into each convolution.
    """
    copied = merge_branches(student)
    convolutions = [part for part in copied.modules() if isinstance(part, nn.Conv2d)]
    for convolution, (least, largest) in zip(convolutions, _bounds(copied, convolutions, restore), strict=True):
        parametrize.register_parametrization(convolution, "weight", _Weights())
        convolution.register_buffer("least", least)
        convolution.register_buffer("largest", largest)
        convolution.register_forward_pre_hook(_code_input)
    return copied.requires_grad_(True)


def plain(model: nn.Module) -> nn.Module:
    """The float model that `model`, of `quantized`, has become, in place: what is exported, and quantized then."""
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=False)
            part._forward_pre_hooks.clear()
            del part.least, part.largest
    return model


def loss(
    teacher: nn.Module, student: nn.Module, problem: Problem, batch: dict[str, Tensor], *, steps: Steps
) -> dict[str, Tensor]:
    """MSE of the end of the chain, and of the restored picture in units of the teacher's own error there.

    teacher: the float self of `student`. Both walk the same `steps` from the same noise.
    """
    del batch  # all of it is in the problem
    with torch.no_grad():
        aim = problem.sample(teacher, problem.start, steps)
        picture = problem.compose(teacher, aim)
        own_error = F.mse_loss(picture, problem.clean).clamp(min=TINY)
    end = problem.sample(student, problem.start, steps)
    figures = {
        "end": F.mse_loss(end, aim),
        "picture": F.mse_loss(problem.compose(student, end), picture) / own_error,
    }
    return {"loss": figures["end"] + figures["picture"], **figures}


def _bounds(
    model: nn.Module, convolutions: list[nn.Conv2d], restore: Callable[[nn.Module], object]
) -> list[tuple[Tensor, Tensor]]:
    """Of what goes into each convolution; zero, with which borders are padded, is always between them."""
    found = {part: (torch.zeros(()), torch.zeros(())) for part in convolutions}

    def look(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(part, nn.Conv2d)
        least, largest = found[part]
        found[part] = torch.minimum(least, inputs[0].min().cpu()), torch.maximum(largest, inputs[0].max().cpu())

    hooks = [part.register_forward_pre_hook(look) for part in convolutions]
    with torch.no_grad():
        restore(model)
    for hook in hooks:
        hook.remove()
    return [found[part] for part in convolutions]


def _code_input(part: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (fake_arrays(inputs[0], part.least, part.largest),)
