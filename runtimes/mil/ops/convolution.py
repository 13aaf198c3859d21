"""Convolutions over one to three spatial dimensions, as matrix products."""

from __future__ import annotations

import math

import numpy as np

from ..elements import Array
from ..signatures import Ints, Op
from .windows import Windows, paddings

__all__ = ["OPS"]

_BYTES = 1 << 24  # of the matrix of windows that is multiplied at a time
_ELEMENTS = 1 << 15  # that stay in the cache while several passes go over them


def _conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Array:
    """x (n, channels in, *spatial) with weight (channels out, channels in / groups, *kernel)."""
    outputs, inputs = weight.shape[:2]
    if x.shape[1] != inputs * groups or outputs % groups:
        raise ValueError(f"{x.shape[1]} channels do not fit weights {list(weight.shape)} in {groups} groups")
    windows = Windows.over(x.shape[2:], weight.shape[2:], strides, dilations, pad_type, pad)
    matrices = weight.reshape(groups, outputs // groups, -1)
    result = np.empty((len(x), outputs, *windows.sizes), x.dtype)
    for image, into in zip(windows.padded(x), result, strict=True):
        if inputs == 1 and outputs == groups:
            _depthwise(image, weight[:, 0], windows, into)
        else:
            _products(image, matrices, windows, into)
    if bias is not None:
        result += bias.reshape(-1, *[1] * len(windows.sizes))
    return result


def _products(image: Array, matrices: Array, windows: Windows, into: Array) -> None:
    """Write the windows of an image (channels, *spatial), as columns, times the matrices of the groups."""
    groups, outputs, inner = matrices.shape
    if windows.points:
        np.matmul(matrices, image.reshape(groups, inner, -1), out=into.reshape(groups, outputs, -1))
        return
    length, *rest = windows.sizes
    step = max(1, _BYTES // (4 * groups * inner * math.prod(rest)))
    for first in range(0, length, step):
        last = min(first + step, length)
        columns = np.empty((len(image), *windows.kernel, last - first, *rest), image.dtype)
        for tap in windows.taps():
            columns[(slice(None), *tap)] = image[(slice(None), *windows.seen(tap, first, last))]
        into[:, first:last] = (matrices @ columns.reshape(groups, inner, -1)).reshape(-1, last - first, *rest)


def _depthwise(image: Array, kernels: Array, windows: Windows, into: Array) -> None:
    """Write each channel with a kernel of its own, some channels at a time."""
    step = max(1, _ELEMENTS // math.prod(windows.sizes))
    for first in range(0, len(image), step):
        some = slice(first, first + step)
        result = into[some]
        part = np.empty_like(result)
        result[...] = 0
        for tap in windows.taps():
            factors = kernels[(some, *tap)].reshape(-1, *[1] * len(windows.sizes))
            np.multiply(image[(some, *windows.seen(tap))], factors, out=part)
            result += part


def _conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Array:
    """Each element of x adds the kernel times itself, `strides` apart, to an array whose padding is then cut off.

    x: (n, channels in, *spatial). weight: (channels in, channels out / groups, *kernel).
    """
    inputs, outputs = weight.shape[:2]
    if x.shape[1] != inputs or inputs % groups:
        raise ValueError(f"{x.shape[1]} channels do not fit weights {list(weight.shape)} in {groups} groups")
    kernel, shape = weight.shape[2:], x.shape[2:]
    ones = (1,) * len(shape)
    strides, dilations = strides or ones, dilations or ones
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    before, sizes = _cut(shape, reach, strides, pad_type, pad, output_shape)
    whole = tuple(
        max((n - 1) * s + r, first + size)
        for n, r, s, first, size in zip(shape, reach, strides, before, sizes, strict=True)
    )
    windows = Windows(kernel, strides, dilations, before, before, shape)  # over the result, one for each element of x
    matrices = np.moveaxis(weight.reshape(groups, inputs // groups, outputs, -1), (-1, 1), (0, -1))
    columns = x.reshape(len(x), groups, inputs // groups, -1)
    result = np.zeros((len(x), groups * outputs, *whole), x.dtype)
    for matrix, tap in zip(matrices, windows.taps(), strict=True):
        result[(..., *windows.seen(tap))] += (matrix @ columns).reshape(len(x), -1, *shape)
    inner = tuple(slice(first, first + size) for first, size in zip(before, sizes, strict=True))
    kept = result[(..., *inner)]
    return kept if bias is None else kept + bias.reshape(-1, *ones)


def _cut(
    shape: Ints, reach: Ints, strides: Ints, pad_type: str, pad: Ints | None, output_shape: Ints | None
) -> tuple[Ints, Ints]:
    """What is cut off before the result, and its sizes."""
    if pad_type == "same":
        sizes = output_shape[2:] if output_shape else tuple(n * s for n, s in zip(shape, strides, strict=True))
        return paddings(sizes, reach, strides, "same", None)[0], sizes
    before, after = paddings(shape, reach, strides, pad_type, pad)
    sizes = tuple(
        (n - 1) * s + r - first - last
        for n, r, s, first, last in zip(shape, reach, strides, before, after, strict=True)
    )
    return before, output_shape[2:] if output_shape else sizes


OPS: dict[str, Op] = {"conv": _conv, "conv_transpose": _conv_transpose}
