"""Channels-last images as matrices of pixels x channels: normalisation and a 1x1 convolution in one kernel.

Every program holds whole pixels of one image, (P, BLOCK_C); BLOCK_C is the channels, padded to a power of two. What
lies between the normalised pixels hat and y = W film(hat) + b is folded into W and b for each image, so `dy^T hat`
and the sum of dy over the pixels determine the gradients of everything but the image.

Traffic by count, in units of one image of C channels, with 2 H = r C outputs: `norm_pointwise` 1 + r,
`norm_pointwise_backward` 3 + r (dy, x and the residual in, dx out), and 2 + r where the weights are too many to sum up
their gradients in registers: then hat is written, and read with dy once more.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .convolutions_triton import products
from .naf_block import EPS
from .naf_vectors_triton import FINISHED, Folded, Norm, affine
from .primitives_triton import block_width, column_sum, dot, launch, rounded, run_length

__all__ = ["NormGradients", "denormalised", "norm_gradients", "norm_pointwise", "norm_pointwise_backward", "normalised"]

SUMMED = 8192  # weights up to which products are summed in registers


class NormGradients(NamedTuple):
    """Gradients of a `Norm`; that of FiLM is written elsewhere."""

    norm_weight: Tensor  # (C,)
    norm_bias: Tensor  # (C,)
    weight: Tensor  # (2H, C, 1, 1)
    bias: Tensor  # (2H,)


@triton.jit
def normalised(x, live, C, EPS: tl.constexpr):
    """Pixels (P, BLOCK_C) float32 -> (x - mean) / standard deviation, and 1 / standard deviation (P, 1)."""
    mean = tl.sum(x, axis=1, keep_dims=True) / C
    centred = tl.where(live, x - mean, 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred, axis=1, keep_dims=True) / C + EPS)
    return centred * inverse, inverse


@triton.jit
def denormalised(d, hat, inverse, C):
    """The gradient of `normalised`: (P, BLOCK_C) d of hat -> of x."""
    along = tl.sum(d * hat, axis=1, keep_dims=True) / C
    return (d - tl.sum(d, axis=1, keep_dims=True) / C - hat * along) * inverse


@triton.jit
def _norm_pointwise_kernel(
    x_ptr, w_ptr, b_ptr, y_ptr, pixels, C, H,
    P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCKS: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    n, first = tl.program_id(1), tl.program_id(0) * P
    at = n.to(tl.int64) * pixels + first
    p, c = tl.arange(0, P)[:, None], tl.arange(0, BLOCK_C)[None, :]
    inside = p < pixels - first
    live = inside & (c < C)
    hat, _ = normalised(tl.load(x_ptr + at * C + (p * C + c), live, 0.0).to(tl.float32), live, C, EPS)
    hat = rounded(hat, x_ptr.dtype.element_ty)
    w_ptr += n * 2 * BLOCKS * BLOCK_H * BLOCK_C
    b_ptr += n * 2 * BLOCKS * BLOCK_H
    y_ptr += at * 2 * H
    for i in range(2 * BLOCKS):
        block = tl.arange(0, BLOCK_H)[None, :]
        w = tl.load(w_ptr + (i * BLOCK_H + block) * BLOCK_C + tl.arange(0, BLOCK_C)[:, None])
        y = dot(hat, w) + tl.load(b_ptr + i * BLOCK_H + block)
        h = i % BLOCKS * BLOCK_H + block
        to = y_ptr + i // BLOCKS * H + (p * 2 * H + h)
        tl.store(to, rounded(y, y_ptr.dtype.element_ty), inside & (h < H))


@triton.jit
def _norm_pointwise_backward_kernel(
    dy_ptr, residual_ptr, x_ptr, w_ptr, dx_ptr, hat_ptr, sums_ptr, products_ptr, pixels, C, H,
    P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCKS: tl.constexpr, TILES: tl.constexpr,
    EPS: tl.constexpr, SUMMED: tl.constexpr,
):  # fmt: skip
    # SUMMED: half the outputs are one block, and dy^T hat is summed over TILES tiles. Else hat is stored.
    n, p, c = tl.program_id(1), tl.arange(0, P)[:, None], tl.arange(0, BLOCK_C)[None, :]
    program = n.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    w_ptr += n * 2 * BLOCKS * BLOCK_H * BLOCK_C
    if SUMMED:
        first, second = tl.zeros((BLOCK_H, BLOCK_C), tl.float32), tl.zeros((BLOCK_H, BLOCK_C), tl.float32)
    for t in range(TILES):
        tile = tl.program_id(0) * TILES + t
        at = n.to(tl.int64) * pixels + tile * P
        inside = p < pixels - tile * P
        live = inside & (c < C)
        hat, inverse = normalised(tl.load(x_ptr + at * C + (p * C + c), live, 0.0).to(tl.float32), live, C, EPS)
        hat = rounded(hat, x_ptr.dtype.element_ty)
        dhat = tl.zeros((P, BLOCK_C), tl.float32)
        for i in range(2 * BLOCKS):
            block, h = tl.arange(0, BLOCK_H), i % BLOCKS * BLOCK_H + tl.arange(0, BLOCK_H)[None, :]
            dy_at = dy_ptr + at * 2 * H + i // BLOCKS * H + (p * 2 * H + h)
            dy = tl.load(dy_at, inside & (h < H), 0.0)
            dhat += dot(dy, tl.load(w_ptr + (i * BLOCK_H + block[:, None]) * BLOCK_C + c))
            to = sums_ptr + (program * TILES + t) * 2 * H + i // BLOCKS * H + h
            tl.store(to, column_sum(dy.to(tl.float32)), h < H)
            if SUMMED:
                product = dot(tl.trans(dy), hat)
                if i == 0:
                    first += product
                else:
                    second += product
        if not SUMMED:
            tl.store(hat_ptr + at * C + (p * C + c), hat, live)
        residual = tl.load(residual_ptr + at * C + (p * C + c), live, 0.0).to(tl.float32)
        dx = denormalised(dhat, hat.to(tl.float32), inverse, C) + residual
        tl.store(dx_ptr + at * C + (p * C + c), rounded(dx, dx_ptr.dtype.element_ty), live)
    if SUMMED:
        h = tl.arange(0, BLOCK_H)[:, None]
        to = products_ptr + program * 2 * H * C + h * C + c
        tl.store(to, first, (h < H) & (c < C))
        tl.store(to + H * C, second, (h < H) & (c < C))


@triton.jit
def _norm_gradients_kernel(
    products_ptr, sums_ptr, norm_weight_ptr, norm_bias_ptr, w_ptr, film_ptr,
    dnorm_weight_ptr, dnorm_bias_ptr, dw_ptr, db_ptr, dfilm_ptr, C, D, SUMS_STRIDE,
    N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, FILM: tl.constexpr,
):  # fmt: skip
    c, o = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)[:, None], tl.arange(0, BLOCK_D)[None, :]
    live = (o < D) & (c < C)
    w = tl.load(w_ptr + o * C + c, live, 0.0).to(tl.float32)
    norm_weight = tl.load(norm_weight_ptr + c, c < C, 0.0).to(tl.float32)
    norm_bias = tl.load(norm_bias_ptr + c, c < C, 0.0).to(tl.float32)
    dw, db = tl.zeros((BLOCK_C, BLOCK_D), tl.float32), tl.zeros((1, BLOCK_D), tl.float32)
    dnorm_weight, dnorm_bias = tl.zeros((BLOCK_C, 1), tl.float32), tl.zeros((BLOCK_C, 1), tl.float32)
    for n in range(N):
        product = tl.load(products_ptr + (n * D + o) * C + c, live, 0.0)
        dy_sum = tl.load(sums_ptr + n * SUMS_STRIDE + o, o < D, 0.0)
        gain, offset = affine(norm_weight_ptr, norm_bias_ptr, film_ptr, n, c, C, FILM)
        dw += product * gain + dy_sum * offset
        db += dy_sum
        # The sums over the pixels of d hat and of d, where d is the gradient of what the convolution takes.
        with_hat, alone = tl.sum(w * product, 1, keep_dims=True), tl.sum(w * dy_sum, 1, keep_dims=True)
        if FILM:
            scale = 1.0 + tl.load(film_ptr + n * 4 * C + c, c < C, 0.0).to(tl.float32)
            dscale = norm_weight * with_hat + norm_bias * alone
            to = dfilm_ptr + n * 4 * C + c
            tl.store(to, rounded(dscale, dfilm_ptr.dtype.element_ty), c < C)
            tl.store(to + C, rounded(alone, dfilm_ptr.dtype.element_ty), c < C)
            with_hat, alone = with_hat * scale, alone * scale
        dnorm_weight += with_hat
        dnorm_bias += alone
    tl.store(dw_ptr + o * C + c, rounded(dw, dw_ptr.dtype.element_ty), live)
    tl.store(db_ptr + o, rounded(db, db_ptr.dtype.element_ty), o < D)  # the same in each program
    tl.store(dnorm_weight_ptr + c, rounded(dnorm_weight, dnorm_weight_ptr.dtype.element_ty), c < C)
    tl.store(dnorm_bias_ptr + c, rounded(dnorm_bias, dnorm_bias_ptr.dtype.element_ty), c < C)


def norm_pointwise(x: Tensor, folded: Folded, hidden: int) -> Tensor:
    """Apply the folded 1x1 to norm(x), x (N, C, H, W): (N, 2 hidden, H, W). Both are channels_last."""
    n, channels, height, width = x.shape
    block_c, padded = folded.weight.shape[-1], folded.weight.shape[-2]
    y = x.new_empty((n, height, width, 2 * hidden)).movedim(-1, 1)
    rows, block_h, warps = (128, 32, 8) if x.dtype.itemsize == 2 else (32, 16, 4)
    launch(
        _norm_pointwise_kernel, (triton.cdiv(height * width, rows), n),
        x, *folded, y, height * width, channels, hidden,
        P=rows, BLOCK_C=block_c, BLOCK_H=block_h, BLOCKS=padded // block_h, EPS=EPS, warps=warps,
    )  # fmt: skip
    return y


def norm_pointwise_backward(
    dy: Tensor, residual: Tensor, x: Tensor, norm: Norm, folded: Folded, dfilm: Tensor | None
) -> tuple[Tensor, NormGradients]:
    """Return the gradients of `norm_pointwise`; that of x is added to `residual`. Images are channels_last.

    The gradient of FiLM is written to `dfilm`, which is laid out as `norm.film`.
    """
    (n, channels, height, width), hidden = x.shape, dy.shape[1] // 2
    block_c, padded, narrow = folded.weight.shape[-1], folded.weight.shape[-2], x.dtype.itemsize == 2
    summed = narrow and 2 * padded * block_c <= SUMMED and padded == triton.next_power_of_2(padded)
    rows, block_h, warps = (128, padded if summed else 32, 8) if narrow else (32, 16, 4)
    tiles = triton.cdiv(height * width, rows)
    run = run_length(tiles, n) if summed else 1
    programs = triton.cdiv(tiles, run)
    dx, hat = torch.empty_like(x), x if summed else torch.empty_like(x)
    sums = x.new_empty((n, programs * run, 2 * hidden), dtype=torch.float32)
    found = x.new_empty((n, programs, 2 * hidden, channels), dtype=torch.float32) if summed else sums
    launch(
        _norm_pointwise_backward_kernel, (programs, n),
        dy, residual, x, folded.weight, dx, hat, sums, found, height * width, channels, hidden,
        P=rows, BLOCK_C=block_c, BLOCK_H=block_h, BLOCKS=padded // block_h, TILES=run,
        EPS=EPS, SUMMED=summed, warps=warps,
    )  # fmt: skip
    found = found.sum(dim=1) if summed else products(dy.movedim(1, -1), hat.movedim(1, -1))
    return dx, norm_gradients(found, sums.sum(dim=1), norm, dfilm)


def norm_gradients(found: Tensor, dy_sum: Tensor, norm: Norm, dfilm: Tensor | None) -> NormGradients:
    """Return the gradients of y = W film(norm(x)) + b from float32 sums over each image.

    Args:
        found: dy^T hat (N, 2H, C), where hat is the normalised x.
        dy_sum: dy (N, 2H).
        norm: what was applied.
        dfilm: the gradient of FiLM is written to it.
    """
    n, outputs, channels = found.shape
    gradients = NormGradients(*(torch.empty_like(t) for t in norm[:4]))
    launch(
        _norm_gradients_kernel, (triton.cdiv(channels, FINISHED),),
        found, dy_sum, *norm[:3], norm.weight if norm.film is None else norm.film,
        *gradients, norm.weight if dfilm is None else dfilm, channels, outputs, dy_sum.stride(0),
        N=n, BLOCK_C=FINISHED, BLOCK_D=block_width(outputs), FILM=norm.film is not None,
    )  # fmt: skip
    return gradients
