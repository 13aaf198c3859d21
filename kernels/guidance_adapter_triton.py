"""Triton implementation of `guidance_adapter`: one kernel forward, two backward.

Images are channels-last, a matrix of pixels x channels; a program holds whole pixels of the C channels of h and of
the D hidden ones. The 3x3 convolution is a matrix product as well, of the 27 values around each pixel, which the
program gathers and pads to 32; the 28th is 1, for the bias.

Traffic in S, the bytes of h, by count: forward 2 (h; y) and 3 / C for the guide. Backward 3 (h and dy; dh) and 2 D / C
for the gradient of the 3x3 convolution's result, an image of D channels from which the second kernel gathers the
gradient of the guide; where that is not needed, both are left out. Only h and the guide are kept; everything inside is
computed again. Gradients of the weights are sums over pixels: in 16 bit a program goes through many tiles and sums in
registers, C (2 D + 1) + 29 D numbers for each of at most `PROGRAMS` programs, which are added up afterwards. Where
these sums do not fit into registers, in float32 and for many channels, the other two hidden gradients are written as
well and multiplied by PyTorch: 2 + 4 D / C more. No atomics: the same result every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .primitives_triton import block_width, dot, launch

__all__ = ["backward", "forward"]

PROGRAMS = 264  # that sum: 2 for each of 132 multiprocessors
SUMMED = 32  # channels up to which they are summed in registers in float32
TAPS = tl.constexpr(32)  # 3 channels x 3 rows x 3 columns, then 1, padded to a power of two


@triton.jit
def _enter(weight_ptr, c, C: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """The weights of `enter` for the channels c (1, B) of h: (BLOCK_D, B)."""
    d = tl.arange(0, BLOCK_D)[:, None]
    return tl.load(weight_ptr + d * C + c, (d < D) & (c < C), 0.0)


@triton.jit
def _leave(weight_ptr, c, C: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """The weights of `leave` for the channels c (B, 1) of y: (B, BLOCK_D)."""
    d = tl.arange(0, BLOCK_D)[None, :]
    return tl.load(weight_ptr + c * D + d, (c < C) & (d < D), 0.0)


@triton.jit
def _conv(weight_ptr, bias_ptr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """The 3x3 convolution with its bias, (BLOCK_D, TAPS)."""
    d, k = tl.arange(0, BLOCK_D)[:, None], tl.arange(0, TAPS)[None, :]
    weight = tl.load(weight_ptr + d * 27 + k, (d < D) & (k < 27), 0.0).to(tl.float32)
    bias = tl.load(bias_ptr + d, d < D, 0.0).to(tl.float32)
    return tl.where(k == 27, bias, weight).to(weight_ptr.dtype.element_ty)


@triton.jit
def _around(guide_ptr, first, pixels, height, width, P: tl.constexpr):
    """The 3 x 3 x 3 values around each of P pixels from `first` on, 0 outside the image, then 1; (P, TAPS)."""
    p, k = tl.arange(0, P)[:, None], tl.arange(0, TAPS)[None, :]
    row, column = (k % 9) // 3 - 1, k % 3 - 1
    y, x = ((first + p) // width) % height + row, (first + p) % width + column
    inside = (p < pixels - first) & (k < 27) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    at = (p + row * width + column) * 3 + k // 9
    values = tl.load(guide_ptr + first.to(tl.int64) * 3 + at, inside, 0.0).to(tl.float32)
    return tl.where(k == 27, 1.0, values).to(guide_ptr.dtype.element_ty)


@triton.jit
def _below(x):
    """The normal distribution function; gelu(x) is x times it."""
    return 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)


@triton.jit
def _slope(x, below):
    """Derivative of gelu at x, given `_below` of it."""
    return below + x * tl.exp(-0.5 * x * x) * 0.3989422804014327


@triton.jit
def _forward_kernel(
    h_ptr, guide_ptr, enter_ptr, enter_bias_ptr, conv_ptr, conv_bias_ptr, leave_ptr, leave_bias_ptr, y_ptr,
    pixels, height, width,
    C: tl.constexpr, D: tl.constexpr, P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
    PART: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * P
    p, d = tl.arange(0, P)[:, None], tl.arange(0, BLOCK_D)[None, :]
    base, inside = first.to(tl.int64) * C, p < pixels - first
    around = _around(guide_ptr, first, pixels, height, width, P)
    g = dot(around, tl.trans(_conv(conv_ptr, conv_bias_ptr, D, BLOCK_D)))
    a = tl.zeros((P, BLOCK_D), tl.float32) + tl.load(enter_bias_ptr + d, d < D, 0.0).to(tl.float32)
    for j in tl.static_range(0, C, BLOCK_C):
        c = j + tl.arange(0, BLOCK_C)[None, :]
        h = tl.load(h_ptr + base + p * C + c, inside & (c < C), 0.0)
        a += dot(h, tl.trans(_enter(enter_ptr, c, C, D, BLOCK_D)))
    u = (a * _below(a) + g * _below(g)).to(h_ptr.dtype.element_ty)
    for j in tl.static_range(0, C, PART):
        c = j + tl.arange(0, PART)
        y = dot(u, tl.trans(_leave(leave_ptr, c[:, None], C, D, BLOCK_D)))
        c = c[None, :]
        if PART < C:
            h = tl.load(h_ptr + base + p * C + c, inside & (c < C), 0.0)
        y += tl.load(leave_bias_ptr + c, c < C, 0.0).to(tl.float32) + h.to(tl.float32)
        tl.store(y_ptr + base + p * C + c, y.to(y_ptr.dtype.element_ty), inside & (c < C))


@triton.jit
def _hidden(
    h_ptr, dy_ptr, enter_ptr, leave_ptr, base, p, inside, j,
    C: tl.constexpr, D: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Load h and dy of BLOCK_C channels from j on; also what they add to the result of `enter` and to du."""
    c = j + tl.arange(0, BLOCK_C)
    live = inside & (c[None, :] < C)
    h = tl.load(h_ptr + base + p * C + c[None, :], live, 0.0)
    dy = tl.load(dy_ptr + base + p * C + c[None, :], live, 0.0)
    a = dot(h, tl.trans(_enter(enter_ptr, c[None, :], C, D, BLOCK_D)))
    return h, dy, a, dot(dy, _leave(leave_ptr, c[:, None], C, D, BLOCK_D))


@triton.jit
def _backward_kernel(
    dy_ptr, h_ptr, guide_ptr, enter_ptr, enter_bias_ptr, conv_ptr, conv_bias_ptr, leave_ptr,
    dh_ptr, dg_ptr, da_ptr, u_ptr, sums_ptr, pixels, chunks, height, width,
    C: tl.constexpr, D: tl.constexpr, P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
    PART: tl.constexpr, SUMMED: tl.constexpr, GUIDED: tl.constexpr,
):  # fmt: skip
    """Of `chunks` tiles of P pixels: dh, and the sums of the weights' gradients (SUMMED) or the hidden images for them.

    Hidden images (pixels, D) are dg, the gradient of the 3x3 convolution's result, da, that of the result of `enter`,
    and u, the input of `leave`; GUIDED also writes dg. BLOCK_C channels of h are taken at a time.
    """
    p, d = tl.arange(0, P)[:, None], tl.arange(0, BLOCK_D)[None, :]
    if SUMMED:
        tl.static_assert(BLOCK_C >= C)
        denter = tl.zeros((BLOCK_C, BLOCK_D), tl.float32)
        denter_bias = tl.zeros((1, BLOCK_D), tl.float32)
        dconv = tl.zeros((BLOCK_D, TAPS), tl.float32)
        dleave = tl.zeros((BLOCK_C, BLOCK_D), tl.float32)
        dleave_bias = tl.zeros((1, BLOCK_C), tl.float32)
    # Loop invariants are computed again in each round: kept throughout, they would fill the registers.
    for i in tl.range(0, chunks, disable_licm=True):
        first = (tl.program_id(0) * chunks + i) * P
        base, inside = first.to(tl.int64) * C, p < pixels - first
        # Forward once more, and back to what is hidden. Outside the images dy is 0, and with it what follows.
        around = _around(guide_ptr, first, pixels, height, width, P)
        g = dot(around, tl.trans(_conv(conv_ptr, conv_bias_ptr, D, BLOCK_D)))
        a = tl.zeros((P, BLOCK_D), tl.float32) + tl.load(enter_bias_ptr + d, d < D, 0.0).to(tl.float32)
        du = tl.zeros((P, BLOCK_D), tl.float32)
        if SUMMED:
            h, dy, a_part, du_part = _hidden(
                h_ptr, dy_ptr, enter_ptr, leave_ptr, base, p, inside, 0, C, D, BLOCK_C, BLOCK_D
            )
            a, du = a + a_part, du + du_part
        else:
            for j in range(0, C, BLOCK_C):
                _, _, a_part, du_part = _hidden(
                    h_ptr, dy_ptr, enter_ptr, leave_ptr, base, p, inside, j, C, D, BLOCK_C, BLOCK_D
                )
                a, du = a + a_part, du + du_part
        below_a, below_g = _below(a), _below(g)
        u = (a * below_a + g * below_g).to(h_ptr.dtype.element_ty)
        dg = (du * _slope(g, below_g)).to(h_ptr.dtype.element_ty)
        da = du * _slope(a, below_a)
        if SUMMED:
            denter_bias += tl.sum(da, axis=0, keep_dims=True)
        da = da.to(h_ptr.dtype.element_ty)
        # Weights.
        at, live = first.to(tl.int64) * D + p * D + d, inside & (d < D)
        if SUMMED:
            denter += dot(tl.trans(h), da)
            dconv += dot(tl.trans(dg), around)
            dleave += dot(tl.trans(dy), u)
            dleave_bias += tl.sum(dy.to(tl.float32), axis=0, keep_dims=True)
        else:
            tl.store(da_ptr + at, da, live)
            tl.store(u_ptr + at, u, live)
        if GUIDED or not SUMMED:
            tl.store(dg_ptr + at, dg, live)
        # h. Not unrolled: the loads of all parts at once would fill the registers.
        for j in range(0, C, PART):
            to = j + tl.arange(0, PART)[None, :]
            part = tl.load(dy_ptr + base + p * C + to, inside & (to < C), 0.0)
            dh = dot(da, _enter(enter_ptr, to, C, D, BLOCK_D)) + part.to(tl.float32)
            tl.store(dh_ptr + base + p * C + to, dh.to(dh_ptr.dtype.element_ty), inside & (to < C))
    if SUMMED:
        # denter (D, C), denter_bias (D,), dconv (D, 28), dleave (C, D), dleave_bias (C,), one behind the other.
        sums_ptr += tl.program_id(0).to(tl.int64) * (D * (2 * C + 29) + C)
        c, row, k = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_D)[:, None], tl.arange(0, TAPS)[None, :]
        live = (c[:, None] < C) & (d < D)
        tl.store(sums_ptr + d * C + c[:, None], denter, live)
        tl.store(sums_ptr + D * C + d, denter_bias, d < D)
        tl.store(sums_ptr + D * (C + 1) + row * 28 + k, dconv, (row < D) & (k < 28))
        tl.store(sums_ptr + D * (C + 29) + c[:, None] * D + d, dleave, live)
        tl.store(sums_ptr + D * (2 * C + 29) + c[None, :], dleave_bias, c[None, :] < C)


@triton.jit
def _guide_kernel(
    dg_ptr, conv_ptr, dguide_ptr, pixels, height, width, D: tl.constexpr, P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The 3x3 convolution transposed: dg (pixels, D) -> dguide (pixels, 3)."""
    first = tl.program_id(0) * P
    p, d = tl.arange(0, P)[:, None], tl.arange(0, BLOCK_D)
    c = tl.arange(0, 16)[None, :]  # 3 channels; matrix products take at least 16
    y, x = ((first + p) // width) % height, (first + p) % width
    dguide = tl.zeros((P, 16), tl.float32)
    for k in tl.static_range(9):
        row, column = 1 - k // 3, 1 - k % 3
        inside = (p < pixels - first) & (y + row >= 0) & (y + row < height) & (x + column >= 0) & (x + column < width)
        at = (p + row * width + column) * D + d[None, :]
        dg = tl.load(dg_ptr + first.to(tl.int64) * D + at, inside & (d[None, :] < D), 0.0)
        conv = tl.load(conv_ptr + d[:, None] * 27 + c * 9 + k, (d[:, None] < D) & (c < 3), 0.0)
        dguide += dot(dg, conv)
    to = dguide_ptr + first.to(tl.int64) * 3 + p * 3 + c
    tl.store(to, dguide.to(dguide_ptr.dtype.element_ty), (p < pixels - first) & (c < 3))


def forward(h: Tensor, guide: Tensor, *weights: Tensor) -> list[Tensor]:
    """As `guidance_adapter`; the result is channels_last."""
    h, guide = (t.contiguous(memory_format=torch.channels_last) for t in (h, guide))
    y = torch.empty_like(h, memory_format=torch.channels_last)
    pixels = h.shape[0] * h.shape[2] * h.shape[3]
    sizes = _Sizes(64, 4, 128, 128) if h.itemsize == 2 else _Sizes(32, 8, 32, 32)
    launch(
        _forward_kernel, (triton.cdiv(pixels, sizes.pixels),),
        h, guide, *(w.contiguous() for w in weights), y, pixels, *h.shape[2:],
        **_constants(sizes, h.shape[1], weights[0].shape[0]), warps=sizes.warps,
    )  # fmt: skip
    return [y]


def backward(dy: Tensor, _kept: Sequence[Tensor], h: Tensor, guide: Tensor, *others: Any) -> list[Tensor]:
    """Gradients of h, the guide (empty if not needed) and all weights and biases.

    others: the weights and biases, then whether the gradient of the guide is needed.
    """
    *weights, guided = others
    h, guide, dy = (t.contiguous(memory_format=torch.channels_last) for t in (h, guide, dy))
    weights = [w.contiguous() for w in weights]
    n, channels, height, width = h.shape
    inside, pixels = weights[0].shape[0], n * height * width
    summed = h.itemsize == 2 or channels <= SUMMED
    sizes = _Sizes(64, 8, 128, 64) if summed else _Sizes(32, 8, 16, 16)
    tiles = triton.cdiv(pixels, sizes.pixels)
    chunks = triton.cdiv(tiles, PROGRAMS) if summed else 1
    programs = triton.cdiv(tiles, chunks)
    dh = torch.empty_like(h, memory_format=torch.channels_last)
    dg = h.new_empty((pixels, inside) if guided or not summed else 0)
    da, u = (h.new_empty(0 if summed else (pixels, inside)) for _ in range(2))
    lengths = [inside * channels, inside, inside * 28, channels * inside, channels]
    sums = h.new_empty((programs, sum(lengths)) if summed else 0, dtype=torch.float32)
    launch(
        _backward_kernel, (programs,),
        dy, h, guide, *weights[:-1], dh, dg, da, u, sums, pixels, chunks, height, width,
        **_constants(sizes, channels, inside), SUMMED=summed, GUIDED=guided, warps=sizes.warps,
        stages=2 if summed else 1,
    )  # fmt: skip
    dguide = torch.empty_like(guide, memory_format=torch.channels_last) if guided else guide.new_empty(0)
    if guided:
        rows, block_d = 64, block_width(inside)
        launch(
            _guide_kernel, (triton.cdiv(pixels, rows),),
            dg, weights[2], dguide, pixels, height, width, D=inside, P=rows, BLOCK_D=block_d,
        )  # fmt: skip
    if summed:
        denter, denter_bias, dconv, dleave, dleave_bias = sums.sum(dim=0).to(h.dtype).split(lengths)
        dconv, dconv_bias = dconv.reshape(inside, 28).split([27, 1], dim=1)
    else:
        h, dy = (t.permute(0, 2, 3, 1).reshape(pixels, channels) for t in (h, dy))
        denter, denter_bias = da.T @ h, da.sum(dim=0)
        dleave, dleave_bias = dy.T @ u, dy.sum(dim=0)
        image = dg.reshape(n, height, width, inside).permute(0, 3, 1, 2)
        dconv = torch.nn.grad.conv2d_weight(guide, weights[2].shape, image, padding=1)
        dconv_bias = dg.sum(dim=0)
    found = denter, denter_bias, dconv, dconv_bias, dleave, dleave_bias
    return [dh, dguide, *(t.reshape(w.shape).clone() for t, w in zip(found, weights, strict=True))]


class _Sizes(NamedTuple):
    """How a kernel cuts its work, chosen so that no register is spilled on sm_80 and sm_90."""

    pixels: int  # of a tile
    warps: int
    entering: int  # channels of h taken at a time
    leaving: int  # channels of the result made at a time


def _constants(sizes: _Sizes, channels: int, inside: int) -> dict[str, int]:
    block_c, part = (min(block_width(channels), size) for size in (sizes.entering, sizes.leaving))
    block_d = block_width(inside)
    return {"C": channels, "D": inside, "P": sizes.pixels, "BLOCK_C": block_c, "BLOCK_D": block_d, "PART": part}
