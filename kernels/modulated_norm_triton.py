"""Triton implementation of `modulated_norm`: one pass forward, one backward.

Images are channels-last, a matrix of pixels x channels; a program holds whole pixels of one image. Sums over the
pixels are written per program and added up afterwards: no atomics, the same result every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .modulated_norm import EPS
from .primitives_triton import launch

__all__ = ["backward", "forward"]

ELEMENTS = 2048  # that one program holds at a time
CHUNKS = 8  # of pixels that a program of the backward pass goes through


@triton.jit
def _normalised(x, live, C, EPS: tl.constexpr, CENTRED: tl.constexpr):
    """Pixels (P, BLOCK_C) float32 -> normalised pixels and 1 / standard deviation (P, 1)."""
    mean = tl.sum(x, axis=1, keep_dims=True) / C
    centred = tl.where(live, x - mean, 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred, axis=1, keep_dims=True) / C + EPS)
    return (centred if CENTRED else x) * inverse, centred, inverse


@triton.jit
def _forward_kernel(
    x_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr, y_ptr, pixels, C,
    P: tl.constexpr, BLOCK_C: tl.constexpr, EPS: tl.constexpr, CENTRED: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1)
    p = tl.program_id(0) * P + tl.arange(0, P)[:, None]
    c = tl.arange(0, BLOCK_C)[None, :]
    live = (p < pixels) & (c < C)
    at = (n.to(tl.int64) * pixels + p) * C + c
    x = tl.load(x_ptr + at, live, 0.0).to(tl.float32)
    y, _, _ = _normalised(x, live, C, EPS, CENTRED)
    y *= tl.load(weight_ptr + c, c < C, 0.0).to(tl.float32)
    if CENTRED:
        y += tl.load(bias_ptr + c, c < C, 0.0).to(tl.float32)
    y = y * tl.load(scale_ptr + n * C + c, c < C, 0.0).to(tl.float32)
    y += tl.load(shift_ptr + n * C + c, c < C, 0.0).to(tl.float32)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), live)


@triton.jit
def _backward_kernel(
    dy_ptr, x_ptr, weight_ptr, scale_ptr, dx_ptr, sums_ptr, pixels, C,
    P: tl.constexpr, CHUNKS: tl.constexpr, BLOCK_C: tl.constexpr, EPS: tl.constexpr, CENTRED: tl.constexpr,
):  # fmt: skip
    n, tile = tl.program_id(1), tl.program_id(0)
    c = tl.arange(0, BLOCK_C)[None, :]
    gain = tl.load(weight_ptr + c, c < C, 0.0).to(tl.float32)
    gain *= tl.load(scale_ptr + n * C + c, c < C, 0.0).to(tl.float32)
    with_x = tl.zeros((1, BLOCK_C), tl.float32)  # sum of dy * normalised x
    alone = tl.zeros((1, BLOCK_C), tl.float32)  # sum of dy
    for i in range(CHUNKS):
        p = (tile * CHUNKS + i) * P + tl.arange(0, P)[:, None]
        live = (p < pixels) & (c < C)
        at = (n.to(tl.int64) * pixels + p) * C + c
        x = tl.load(x_ptr + at, live, 0.0).to(tl.float32)
        dy = tl.load(dy_ptr + at, live, 0.0).to(tl.float32)
        hat, centred, inverse = _normalised(x, live, C, EPS, CENTRED)
        with_x += tl.sum(dy * hat, axis=0, keep_dims=True)
        alone += tl.sum(dy, axis=0, keep_dims=True)
        # x / s with s from the centred x: d = g / s - centred * sum(g * x) / (C s^3), centred where the output is.
        g = dy * gain
        along = tl.sum(g * hat, axis=1, keep_dims=True) / C
        dx = g * inverse - centred * inverse * inverse * along
        if CENTRED:
            dx -= tl.sum(g, axis=1, keep_dims=True) / C * inverse
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), live)
    to = sums_ptr + ((n * tl.num_programs(0) + tile) * 2) * C + c
    tl.store(to, with_x, c < C)
    tl.store(to + C, alone, c < C)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> list[Tensor]:
    """As `modulated_norm`; the result is channels_last."""
    n, channels, pixels, block, rows = _sizes(x)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.empty_like(x, memory_format=torch.channels_last)
    weight, scale, shift = (t.contiguous() for t in (weight, scale, shift))
    launch(
        _forward_kernel, (triton.cdiv(pixels, rows), n),
        x, weight, weight if bias is None else bias.contiguous(), scale, shift, y, pixels, channels,
        P=rows, BLOCK_C=block, EPS=EPS, CENTRED=bias is not None,
    )  # fmt: skip
    return [y]


def backward(
    dy: Tensor, _kept: Sequence[Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, _shift: Tensor
) -> list[Tensor]:
    """Gradients of x, weight, bias if there is one, scale and shift."""
    n, channels, pixels, block, rows = _sizes(x)
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    tiles = triton.cdiv(pixels, rows * CHUNKS)
    sums = x.new_empty((n, tiles, 2, channels), dtype=torch.float32)
    launch(
        _backward_kernel, (tiles, n),
        dy, x, weight.contiguous(), scale.contiguous(), dx, sums, pixels, channels,
        P=rows, CHUNKS=CHUNKS, BLOCK_C=block, EPS=EPS, CENTRED=bias is not None,
    )  # fmt: skip
    with_x, alone = sums.sum(dim=1).unbind(dim=1)  # (N, C)
    dscale = with_x * weight
    found = [(with_x * scale).sum(dim=0)]
    if bias is not None:
        dscale += alone * bias
        found.append((alone * scale).sum(dim=0))
    return [dx, *(t.to(x.dtype) for t in (*found, dscale, alone))]


def _sizes(x: Tensor) -> tuple[int, int, int, int, int]:
    """N, C, pixels of an image, C padded to a power of two, pixels per program."""
    n, channels, height, width = x.shape
    block = triton.next_power_of_2(channels)
    return n, channels, height * width, block, max(1, ELEMENTS // block)
