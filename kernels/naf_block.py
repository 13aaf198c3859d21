"""NAFNet's block with FiLM: a spatial half and a pointwise half, each x + beta * half(film(norm(x))).

Chen et al., "Simple Baselines for Image Restoration" (NAFNet, ECCV 2022), Fig. 3c; the time-conditioned normalisation
as in Luo et al., "Refusion" (CVPRW 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .select import Shape, choose, operator

__all__ = ["CASES", "EPS", "Parameters", "example", "fused", "gate", "naf_block", "reference", "unsupported"]

# One pixel; odd sizes with borders on all sides; more than one tile; channels that are no power of two; the widest.
CASES = ((1, 16, 1, 1), (2, 16, 5, 7), (1, 32, 11, 13), (1, 24, 9, 3), (1, 128, 3, 5))
EPS = 1e-6  # added to the variance in both layer normalisations
WIDEST = 128  # channels: a program holds whole pixels
DEEPEST = 256  # hidden channels


class Parameters(NamedTuple):
    """The parameters of a NAF block of C channels with D hidden channels, in the order of their use."""

    spatial_norm_weight: Tensor  # (C,)
    spatial_norm_bias: Tensor  # (C,)
    spatial_in_weight: Tensor  # (2D, C, 1, 1)
    spatial_in_bias: Tensor  # (2D,)
    depthwise_weight: Tensor  # (2D, 1, 3, 3)
    depthwise_bias: Tensor  # (2D,)
    attention_weight: Tensor  # (D, D, 1, 1)
    attention_bias: Tensor  # (D,)
    spatial_out_weight: Tensor  # (C, D, 1, 1)
    spatial_out_bias: Tensor  # (C,)
    beta: Tensor  # (C, 1, 1): factor of the spatial half
    point_norm_weight: Tensor  # (C,)
    point_norm_bias: Tensor  # (C,)
    point_in_weight: Tensor  # (2D, C, 1, 1)
    point_in_bias: Tensor  # (2D,)
    point_out_weight: Tensor  # (C, D, 1, 1)
    point_out_bias: Tensor  # (C,)
    gamma: Tensor  # (C, 1, 1): factor of the pointwise half


def reference(x: Tensor, film: Tensor | None, parameters: Parameters) -> Tensor:
    """The op in plain PyTorch; arguments as `naf_block`."""
    p = parameters
    films: Sequence[Tensor | None] = (None, None)
    if film is not None:
        films = film[:, :, None, None].chunk(2, dim=1)
    # Spatial half.
    h = _filmed(_norm(x, p.spatial_norm_weight, p.spatial_norm_bias), films[0])
    h = F.conv2d(h, p.spatial_in_weight, p.spatial_in_bias)
    h = gate(F.conv2d(h, p.depthwise_weight, p.depthwise_bias, padding=1, groups=h.shape[1]))
    h = h * F.conv2d(h.mean(dim=(2, 3), keepdim=True), p.attention_weight, p.attention_bias)
    x = x + p.beta * F.conv2d(h, p.spatial_out_weight, p.spatial_out_bias)
    # Pointwise half.
    h = _filmed(_norm(x, p.point_norm_weight, p.point_norm_bias), films[1])
    h = gate(F.conv2d(h, p.point_in_weight, p.point_in_bias))
    return x + p.gamma * F.conv2d(h, p.point_out_weight, p.point_out_bias)


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, eps=EPS).permute(0, 3, 1, 2)


def _filmed(x: Tensor, film: Tensor | None) -> Tensor:
    if film is None:
        return x
    scale, shift = film.chunk(2, dim=1)
    return x * (1 + scale) + shift


def gate(x: Tensor) -> Tensor:
    """The simple gate: the first half of the channels times the second, (N, 2C, ...) -> (N, C, ...)."""
    first, second = x.chunk(2, dim=1)
    return first * second


def naf_block(x: Tensor, film: Tensor | None, parameters: Parameters) -> Tensor:
    """Apply the block.

    Args:
        x: (N, C, H, W).
        film: (N, 4C), scale and shift of the spatial half, then of the pointwise half; None for no FiLM.
        parameters: weights, biases and factors, with their shapes in `Parameters`.

    Returns:
        The shape of `x`.
    """
    return choose(reference, fused, unsupported, x, film, parameters)


def unsupported(x: Tensor, _film: Tensor | None, parameters: Parameters) -> str | None:
    """Return why the kernels cannot take the call, or None."""
    hidden = len(parameters.attention_bias)
    if x.shape[1] > WIDEST:
        return f"{x.shape[1]} channels; the kernels take up to {WIDEST}"
    return f"{hidden} hidden channels; the kernels take up to {DEEPEST}" if hidden > DEEPEST else None


def example(shape: Shape, generator: torch.Generator) -> tuple[Tensor, Tensor | None, Parameters]:
    """Arguments of one call, float32 on the CPU: 24 channels without FiLM, below 24 twice as many hidden channels."""
    normal = partial(torch.randn, generator=generator)

    def weights(outputs: int, inputs: int, side: int) -> tuple[Tensor, Tensor]:
        return (inputs * side**2) ** -0.5 * normal(outputs, inputs, side, side), 0.2 * normal(outputs)

    n, c = shape[:2]
    hidden = 2 * c if c < 24 else c
    norms = [(1 + 0.2 * normal(c), 0.2 * normal(c)) for _ in range(2)]
    film = None if c == 24 else 0.5 * normal(n, 4 * c)
    spatial = (
        *weights(2 * hidden, c, 1),
        *weights(2 * hidden, 1, 3),
        *weights(hidden, hidden, 1),
        *weights(c, hidden, 1),
    )
    point = (*weights(2 * hidden, c, 1), *weights(c, hidden, 1))
    beta, gamma = normal(c, 1, 1), normal(c, 1, 1)
    return normal(*shape), film, Parameters(*norms[0], *spatial, beta, *norms[1], *point, gamma)


def _kept(x: Tensor, _film: Tensor | None, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gated tensor (N, D, H, W), its mean and the scale that the attention makes of it, (N, D) float32."""
    n, _, height, width = x.shape
    hidden = len(Parameters(*parameters).attention_bias)
    gated = x.new_empty((n, height, width, hidden)).movedim(-1, 1)
    return [gated, *(x.new_empty((n, hidden), dtype=torch.float32) for _ in range(2))]


fused = operator("naf_block", "Tensor x, Tensor? film, Tensor[] parameters", kept=_kept)
"""The Triton implementation as an operator of PyTorch; the result is channels_last."""
