"""NAFNet's block with FiLM: a spatial half and a pointwise half, each x + beta * half(film(norm(x))).

Chen et al., "Simple Baselines for Image Restoration" (NAFNet, ECCV 2022), Fig. 3c; the time-conditioned normalisation
as in Luo et al., "Refusion" (CVPRW 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import LARGE, SMALL, Case
from .select import choose

__all__ = ["CASES", "example", "fused", "gate", "naf_block", "reference", "unsupported"]

CASES = (*SMALL, Case(1, 128, 3, 5), *LARGE)
EPS = 1e-6
WIDEST = 128  # channels: a program holds whole pixels
DEEPEST = 256  # hidden channels


def reference(
    x: Tensor,
    film: Tensor | None,
    spatial_norm_weight: Tensor,
    spatial_norm_bias: Tensor,
    spatial_in_weight: Tensor,
    spatial_in_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    attention_weight: Tensor,
    attention_bias: Tensor,
    spatial_out_weight: Tensor,
    spatial_out_bias: Tensor,
    beta: Tensor,
    point_norm_weight: Tensor,
    point_norm_bias: Tensor,
    point_in_weight: Tensor,
    point_in_bias: Tensor,
    point_out_weight: Tensor,
    point_out_bias: Tensor,
    gamma: Tensor,
) -> Tensor:
    """The op in plain PyTorch."""
    films: Sequence[Tensor | None] = (None, None)
    if film is not None:
        films = film[:, :, None, None].chunk(2, dim=1)
    # Spatial half.
    h = F.conv2d(
        _filmed(_norm(x, spatial_norm_weight, spatial_norm_bias), films[0]), spatial_in_weight, spatial_in_bias
    )
    h = gate(F.conv2d(h, depthwise_weight, depthwise_bias, padding=1, groups=h.shape[1]))
    h = h * F.conv2d(h.mean(dim=(2, 3), keepdim=True), attention_weight, attention_bias)
    x = x + beta * F.conv2d(h, spatial_out_weight, spatial_out_bias)
    # Pointwise half.
    h = gate(F.conv2d(_filmed(_norm(x, point_norm_weight, point_norm_bias), films[1]), point_in_weight, point_in_bias))
    return x + gamma * F.conv2d(h, point_out_weight, point_out_bias)


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


def naf_block(x: Tensor, film: Tensor | None, *parameters: Tensor) -> Tensor:
    """The block. Returns the shape of x.

    x: (N, C, H, W). film: (N, 4C), scale and shift of the spatial half, then of the pointwise half. parameters, in the
    order of their use, with D hidden channels: weight and bias of the spatial norm (C,); of spatial in (2D, C, 1, 1),
    depthwise (2D, 1, 3, 3), attention (D, D, 1, 1) and spatial out (C, D, 1, 1); beta (C, 1, 1); weight and bias of the
    pointwise norm (C,), of point in (2D, C, 1, 1) and point out (C, D, 1, 1); gamma (C, 1, 1).
    """
    return choose(reference, _first, unsupported, x, film, *parameters)


def unsupported(x: Tensor, film: Tensor | None, *parameters: Tensor) -> str | None:
    """Why the kernels cannot take the call, or None."""
    del film
    hidden = parameters[6].shape[0]
    if x.shape[1] > WIDEST:
        return f"{x.shape[1]} channels; the kernels take up to {WIDEST}"
    return f"{hidden} hidden channels; the kernels take up to {DEEPEST}" if hidden > DEEPEST else None


def example(case: Case, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    """Arguments of one call, float32 on the CPU: 24 channels without FiLM, below 24 twice as many hidden channels."""

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    def weights(outputs: int, inputs: int, side: int) -> tuple[Tensor, Tensor]:
        return normal(outputs, inputs, side, side, scale=(inputs * side**2) ** -0.5), normal(outputs, scale=0.2)

    c = case.channels
    hidden = 2 * c if c < 24 else c
    norms = [(1 + normal(c, scale=0.2), normal(c, scale=0.2)) for _ in range(2)]
    film = None if c == 24 else normal(case.n, 4 * c, scale=0.5)
    spatial = (
        *weights(2 * hidden, c, 1),
        *weights(2 * hidden, 1, 3),
        *weights(hidden, hidden, 1),
        *weights(c, hidden, 1),
    )
    point = (*weights(2 * hidden, c, 1), *weights(c, hidden, 1))
    beta, gamma = normal(c, 1, 1), normal(c, 1, 1)
    return normal(*case.shape), film, *norms[0], *spatial, beta, *norms[1], *point, gamma


@torch.library.custom_op("pocketprior::naf_block", mutates_args=())
def fused(
    x: Tensor,
    film: Tensor | None,
    spatial_norm_weight: Tensor,
    spatial_norm_bias: Tensor,
    spatial_in_weight: Tensor,
    spatial_in_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    attention_weight: Tensor,
    attention_bias: Tensor,
    spatial_out_weight: Tensor,
    spatial_out_bias: Tensor,
    beta: Tensor,
    point_norm_weight: Tensor,
    point_norm_bias: Tensor,
    point_in_weight: Tensor,
    point_in_bias: Tensor,
    point_out_weight: Tensor,
    point_out_bias: Tensor,
    gamma: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The twin as an operator of PyTorch; the result is channels_last.

    Besides it gives what the backward pass keeps: the gated tensor (N, hidden, H, W), and the mean of it and the scale
    that the attention makes of the mean, (N, hidden) float32.
    """
    from . import naf_block_triton

    parameters = naf_block_triton.Parameters(
        spatial_norm_weight, spatial_norm_bias, spatial_in_weight, spatial_in_bias, depthwise_weight, depthwise_bias,
        attention_weight, attention_bias, spatial_out_weight, spatial_out_bias, beta,
        point_norm_weight, point_norm_bias, point_in_weight, point_in_bias, point_out_weight, point_out_bias, gamma,
    )  # fmt: skip
    return naf_block_triton.forward(x, film, parameters)


def _first(*args: Tensor | None) -> Tensor:
    return fused(*args)[0]


@torch.library.custom_op("pocketprior::naf_block_backward", mutates_args=())
def _fused_backward(
    dy: Tensor, gated: Tensor, mean: Tensor, scale: Tensor, x: Tensor, film: Tensor | None, parameters: Sequence[Tensor]
) -> list[Tensor]:
    from . import naf_block_triton

    return naf_block_triton.backward(dy, gated, mean, scale, x, film, naf_block_triton.Parameters(*parameters))


@fused.register_fake
def _(x: Tensor, film: Tensor | None, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del film
    n, _, height, width = x.shape
    hidden = parameters[6].shape[0]
    gated = x.new_empty((n, height, width, hidden)).movedim(-1, 1)
    mean, scale = (x.new_empty((n, hidden), dtype=torch.float32) for _ in range(2))
    return torch.empty_like(x, memory_format=torch.channels_last), gated, mean, scale


@_fused_backward.register_fake
def _(
    dy: Tensor, gated: Tensor, mean: Tensor, scale: Tensor, x: Tensor, film: Tensor | None, parameters: Sequence[Tensor]
) -> list[Tensor]:
    del dy, gated, mean, scale
    dfilm = x.new_empty((0,)) if film is None else film.new_empty(film.shape)
    return [torch.empty_like(x, memory_format=torch.channels_last), dfilm, *(p.new_empty(p.shape) for p in parameters)]


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    kept = output[1:]
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)  # of what is kept they would be pictures of zeros
    ctx.save_for_backward(*kept, *inputs)


def _gradients(ctx: Any, dy: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    gated, mean, scale, x, film, *parameters = ctx.saved_tensors
    dx, dfilm, *rest = _fused_backward(dy, gated, mean, scale, x, film, parameters)
    return dx, None if film is None else dfilm, *rest


fused.register_autograd(_gradients, setup_context=_save)
