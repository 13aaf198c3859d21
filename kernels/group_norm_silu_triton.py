"""Triton implementation of `group_norm_silu`.

One kernel takes the statistics of tiles, one combines them, one applies them; the same three in the backward pass.

Images are channels-last, a matrix of pixels x channels. A program takes a tile of whole pixels of one image, not a
group, so that even a single image occupies all multiprocessors. Per tile and channel it writes the mean and the sum of
squares about that mean, which `_combine_kernel` joins over tiles and the channels of a group (Chan, Golub and LeVeque,
"Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979, Eq. 2.1). This is exact even where
the mean is far larger than the deviation. Groups can have any size, because only the small kernels know of them.

Traffic in S, the bytes of x, by count: forward 3 (x; x and y), backward 5 (x and dy; x, dy and dx). Tiles pass on 8
bytes per channel: S / 16 or less once x is larger than 4096 elements for each of `PROGRAMS`. The second passes go
through the tiles in reverse: what the first pass read last is still in the cache. Kept for the backward pass: x, and
mean and 1 / standard deviation of each group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .group_norm_silu import EPS
from .primitives_triton import launch

__all__ = ["backward", "forward"]

ELEMENTS = (2048, 8192)  # fewest and most that one program holds: 8192 are 32 per thread of 8 warps
PROGRAMS = 1024  # wanted before tiles grow: about one wave of 8 warps on 132 multiprocessors
CELLS = 2048  # tiles x channels of a group that the small kernels take at a time


@triton.jit
def _statistics_kernel(x_ptr, sums_ptr, pixels, C, P: tl.constexpr, BLOCK_C: tl.constexpr):
    n, tile = tl.program_id(1), tl.program_id(0)
    p, c = tl.arange(0, P)[:, None], tl.arange(0, BLOCK_C)[None, :]
    live = (p < pixels - tile * P) & (c < C)
    first = (n.to(tl.int64) * pixels + tile * P) * C
    x = tl.load(x_ptr + first + p * C + c, live, 0.0).to(tl.float32)
    count = tl.minimum(P, pixels - tile * P)
    mean = tl.sum(x, axis=0, keep_dims=True) / count
    centred = tl.where(live, x - mean, 0.0)
    mean += tl.sum(centred, axis=0, keep_dims=True) / count  # what rounding left over
    to = sums_ptr + ((n.to(tl.int64) * tl.num_programs(0) + tile) * 2) * C + c
    tl.store(to, mean, c < C)
    tl.store(to + C, tl.sum(centred * centred, axis=0, keep_dims=True), c < C)


@triton.jit
def _combine_kernel(
    sums_ptr, statistics_ptr, pixels, tiles, C, size,
    P: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Means and squares of tiles (N, tiles, 2, C) -> mean and 1 / deviation (2, N, groups); a group is `size` wide."""
    n, group = tl.program_id(1), tl.program_id(0)
    c = tl.arange(0, BLOCK)[None, :]
    count = tl.zeros((T, BLOCK), tl.float32)
    mean = tl.zeros((T, BLOCK), tl.float32)
    squares = tl.zeros((T, BLOCK), tl.float32)
    first = sums_ptr + n.to(tl.int64) * tiles * 2 * C
    for i in range(0, tiles, T):
        t = i + tl.arange(0, T)[:, None]
        live = (t < tiles) & (c < size)
        at = first + t * 2 * C + group * size + c
        more = tl.where(live, tl.minimum(P, pixels - t * P), 0).to(tl.float32)
        share = more / tl.maximum(count + more, 1.0)
        apart = tl.load(at, live, 0.0) - mean
        mean += apart * share
        squares += tl.load(at + C, live, 0.0) + apart * apart * count * share
        count += more
    whole = pixels * 1.0 * size
    middle = tl.sum(tl.sum(mean * count, axis=1) / whole, axis=0)
    middle += tl.sum(tl.sum((mean - middle) * count, axis=1) / whole, axis=0)  # what rounding left over
    apart = mean - middle
    variance = tl.sum(tl.sum(squares + count * apart * apart, axis=1), axis=0) / whole
    to = statistics_ptr + n * tl.num_programs(0) + group
    tl.store(to, middle)
    tl.store(to + tl.num_programs(0) * tl.num_programs(1), tl.rsqrt(variance + EPS))


@triton.jit
def _of_group(statistics_ptr, n, images, c, C, size):
    """Mean and 1 / deviation (1, BLOCK_C) of the groups that the channels are in."""
    at = statistics_ptr + n * (C // size) + c // size
    return tl.load(at, c < C, 0.0), tl.load(at + images * (C // size), c < C, 0.0)


@triton.jit
def _factors(weight_ptr, bias_ptr, film_ptr, n, c, C, FILM: tl.constexpr):
    """Weight, bias, 1 + FiLM scale and shift, (1, BLOCK_C) float32 each."""
    weight = tl.load(weight_ptr + c, c < C, 0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, c < C, 0.0).to(tl.float32)
    scale = tl.full(weight.shape, 1.0, tl.float32)
    shift = tl.zeros(weight.shape, tl.float32)
    if FILM:
        scale += tl.load(film_ptr + n * 2 * C + c, c < C, 0.0).to(tl.float32)
        shift += tl.load(film_ptr + n * 2 * C + C + c, c < C, 0.0).to(tl.float32)
    return weight, bias, scale, shift


@triton.jit
def _forward_kernel(
    x_ptr, statistics_ptr, weight_ptr, bias_ptr, film_ptr, y_ptr, pixels, C, size,
    P: tl.constexpr, BLOCK_C: tl.constexpr, FILM: tl.constexpr,
):  # fmt: skip
    images = tl.num_programs(1)
    n, tile = images - 1 - tl.program_id(1), tl.num_programs(0) - 1 - tl.program_id(0)
    p, c = tl.arange(0, P)[:, None], tl.arange(0, BLOCK_C)[None, :]
    live = (p < pixels - tile * P) & (c < C)
    first = (n.to(tl.int64) * pixels + tile * P) * C
    x = tl.load(x_ptr + first + p * C + c, live, 0.0).to(tl.float32)
    mean, inverse = _of_group(statistics_ptr, n, images, c, C, size)
    weight, bias, scale, shift = _factors(weight_ptr, bias_ptr, film_ptr, n, c, C, FILM)
    z = ((x - mean) * inverse * weight + bias) * scale + shift
    y = z * tl.sigmoid(z)
    tl.store(y_ptr + first + p * C + c, y.to(y_ptr.dtype.element_ty), live)


@triton.jit
def _before_silu(x, dy, mean, inverse, weight, bias, scale, shift):
    """Normalised x, and the gradient of what SiLU took."""
    hat = (x - mean) * inverse
    z = (hat * weight + bias) * scale + shift
    share = tl.sigmoid(z)
    return hat, dy * share * (1 + z * (1 - share))


@triton.jit
def _sums_kernel(
    dy_ptr, x_ptr, statistics_ptr, weight_ptr, bias_ptr, film_ptr, sums_ptr, pixels, C, size,
    P: tl.constexpr, BLOCK_C: tl.constexpr, FILM: tl.constexpr,
):  # fmt: skip
    """Per tile and channel the sums of dz * normalised x and of dz, where z is what SiLU took."""
    images = tl.num_programs(1)
    n, tile = tl.program_id(1), tl.program_id(0)
    p, c = tl.arange(0, P)[:, None], tl.arange(0, BLOCK_C)[None, :]
    live = (p < pixels - tile * P) & (c < C)
    first = (n.to(tl.int64) * pixels + tile * P) * C
    x = tl.load(x_ptr + first + p * C + c, live, 0.0).to(tl.float32)
    dy = tl.load(dy_ptr + first + p * C + c, live, 0.0).to(tl.float32)
    mean, inverse = _of_group(statistics_ptr, n, images, c, C, size)
    weight, bias, scale, shift = _factors(weight_ptr, bias_ptr, film_ptr, n, c, C, FILM)
    hat, dz = _before_silu(x, dy, mean, inverse, weight, bias, scale, shift)
    to = sums_ptr + ((n.to(tl.int64) * tl.num_programs(0) + tile) * 2) * C + c
    tl.store(to, tl.sum(dz * hat, axis=0, keep_dims=True), c < C)
    tl.store(to + C, tl.sum(dz, axis=0, keep_dims=True), c < C)


@triton.jit
def _totals_kernel(
    sums_ptr, weight_ptr, bias_ptr, film_ptr, dfilm_ptr, parts_ptr, means_ptr, pixels, tiles, C, size,
    T: tl.constexpr, BLOCK: tl.constexpr, FILM: tl.constexpr,
):  # fmt: skip
    """Sums of tiles (N, tiles, 2, C) -> dfilm; parts of dweight and dbias (2, N, C); what dx takes of groups."""
    n, group = tl.program_id(1), tl.program_id(0)
    groups, images = tl.num_programs(0), tl.num_programs(1)
    in_group = tl.arange(0, BLOCK)[None, :]
    c = tl.where(in_group < size, group * size + in_group, C)
    with_x = tl.zeros((T, BLOCK), tl.float32)
    alone = tl.zeros((T, BLOCK), tl.float32)
    first = sums_ptr + n.to(tl.int64) * tiles * 2 * C
    for i in range(0, tiles, T):
        t = i + tl.arange(0, T)[:, None]
        live = (t < tiles) & (c < C)
        at = first + t * 2 * C + c
        with_x += tl.load(at, live, 0.0)
        alone += tl.load(at + C, live, 0.0)
    with_x = tl.sum(with_x, axis=0, keep_dims=True)
    alone = tl.sum(alone, axis=0, keep_dims=True)
    weight, bias, scale, _ = _factors(weight_ptr, bias_ptr, film_ptr, n, c, C, FILM)
    if FILM:
        to = dfilm_ptr + n * 2 * C + c
        tl.store(to, (with_x * weight + alone * bias).to(dfilm_ptr.dtype.element_ty), c < C)
        tl.store(to + C, alone.to(dfilm_ptr.dtype.element_ty), c < C)
    with_x, alone = with_x * scale, alone * scale
    tl.store(parts_ptr + n * C + c, with_x, c < C)
    tl.store(parts_ptr + (images + n) * C + c, alone, c < C)
    whole = pixels * 1.0 * size
    to = means_ptr + n * groups + group
    tl.store(to, tl.sum(tl.sum(with_x * weight, axis=1) / whole, axis=0))
    tl.store(to + groups * images, tl.sum(tl.sum(alone * weight, axis=1) / whole, axis=0))


@triton.jit
def _backward_kernel(
    dy_ptr, x_ptr, statistics_ptr, means_ptr, weight_ptr, bias_ptr, film_ptr, dx_ptr, pixels, C, size,
    P: tl.constexpr, BLOCK_C: tl.constexpr, FILM: tl.constexpr,
):  # fmt: skip
    images = tl.num_programs(1)
    n, tile = images - 1 - tl.program_id(1), tl.num_programs(0) - 1 - tl.program_id(0)
    p, c = tl.arange(0, P)[:, None], tl.arange(0, BLOCK_C)[None, :]
    live = (p < pixels - tile * P) & (c < C)
    first = (n.to(tl.int64) * pixels + tile * P) * C
    x = tl.load(x_ptr + first + p * C + c, live, 0.0).to(tl.float32)
    dy = tl.load(dy_ptr + first + p * C + c, live, 0.0).to(tl.float32)
    mean, inverse = _of_group(statistics_ptr, n, images, c, C, size)
    along, offset = _of_group(means_ptr, n, images, c, C, size)
    weight, bias, scale, shift = _factors(weight_ptr, bias_ptr, film_ptr, n, c, C, FILM)
    hat, dz = _before_silu(x, dy, mean, inverse, weight, bias, scale, shift)
    dx = (dz * weight * scale - offset - hat * along) * inverse
    tl.store(dx_ptr + first + p * C + c, dx.to(dx_ptr.dtype.element_ty), live)


def forward(x: Tensor, groups: int, weight: Tensor, bias: Tensor, film: Tensor | None) -> list[Tensor]:
    """As `group_norm_silu`, channels_last, and mean and 1 / deviation of the groups, (2, N, groups) float32."""
    n, channels, pixels, sizes = _sizes(x)
    tiles, size = triton.cdiv(pixels, sizes["P"]), channels // groups
    x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = weight.contiguous(), bias.contiguous()
    sums = x.new_empty((n, tiles, 2, channels), dtype=torch.float32)
    statistics = x.new_empty((2, n, groups), dtype=torch.float32)
    y = torch.empty_like(x, memory_format=torch.channels_last)
    launch(_statistics_kernel, (tiles, n), x, sums, pixels, channels, **sizes)
    launch(
        _combine_kernel, (groups, n), sums, statistics, pixels, tiles, channels, size,
        P=sizes["P"], **_cells(tiles, size), EPS=EPS,
    )  # fmt: skip
    launch(
        _forward_kernel, (tiles, n),
        x, statistics, weight, bias, weight if film is None else film.contiguous(), y, pixels, channels, size,
        **sizes, FILM=film is not None,
    )  # fmt: skip
    return [y, statistics]


def backward(
    dy: Tensor, kept: Sequence[Tensor], x: Tensor, groups: int, weight: Tensor, bias: Tensor, film: Tensor | None
) -> list[Tensor]:
    """Gradients of x, weight, bias and film if there is one."""
    (statistics,) = kept
    n, channels, pixels, sizes = _sizes(x)
    tiles, size = triton.cdiv(pixels, sizes["P"]), channels // groups
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    factors = weight.contiguous(), bias.contiguous(), weight if film is None else film.contiguous()
    sums = x.new_empty((n, tiles, 2, channels), dtype=torch.float32)
    parts = x.new_empty((2, n, channels), dtype=torch.float32)
    means = torch.empty_like(statistics)
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    dfilms = [] if film is None else [torch.empty_like(film)]
    flag = film is not None
    launch(
        _sums_kernel, (tiles, n), dy, x, statistics, *factors, sums, pixels, channels, size,
        **sizes, FILM=flag,
    )  # fmt: skip
    launch(
        _totals_kernel, (groups, n),
        sums, *factors, dfilms[0] if dfilms else sums, parts, means, pixels, tiles, channels, size,
        **_cells(tiles, size), FILM=flag,
    )  # fmt: skip
    launch(
        _backward_kernel, (tiles, n), dy, x, statistics, means, *factors, dx, pixels, channels, size,
        **sizes, FILM=flag,
    )  # fmt: skip
    return [dx, *(part.sum(dim=0).to(x.dtype) for part in parts), *dfilms]


def _sizes(x: Tensor) -> tuple[int, int, int, dict[str, int]]:
    """N, C, pixels of an image; pixels per program, C padded to a power of two, and warps."""
    n, channels, height, width = x.shape
    block = triton.next_power_of_2(channels)
    fewest, most = ELEMENTS
    elements = min(max(triton.next_power_of_2(n * height * width * block // PROGRAMS), fewest), most)
    rows = min(max(1, elements // block), triton.next_power_of_2(height * width))
    return n, channels, height * width, {"P": rows, "BLOCK_C": block, "warps": 8 if rows * block > 4096 else 4}


def _cells(tiles: int, size: int) -> dict[str, int]:
    """Tiles, and channels of a group, that the small kernels take at a time."""
    block = triton.next_power_of_2(size)
    return {"T": min(max(1, CELLS // block), triton.next_power_of_2(tiles)), "BLOCK": block}
