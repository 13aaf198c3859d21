"""Sums of many elements: matrix products, attention, reductions, normalization; windows: convolutions and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..values import Ints, MilArray, Op

__all__ = ["REDUCTIONS", "Windows"]

_BYTES = 1 << 24  # of the matrix of windows that is multiplied at a time
_ELEMENTS = 1 << 15  # that stay in the cache while several passes go over them


def _linear(x: MilArray, weight: MilArray, bias: MilArray | None = None) -> MilArray:
    """x times the transpose of weight (outputs, inputs), plus bias."""
    product = x @ weight.T
    return product if bias is None else product + bias


def _matmul(x: MilArray, y: MilArray, transpose_x: bool = False, transpose_y: bool = False) -> MilArray:
    """The matrix product over the last two dimensions; a vector is a row on the left, a column on the right."""
    left = x.swapaxes(-1, -2) if transpose_x and x.ndim > 1 else x
    right = y.swapaxes(-1, -2) if transpose_y and y.ndim > 1 else y
    return np.matmul(left, right)


def _softmax(x: MilArray, axis: int = -1) -> MilArray:
    """exp(x) / sum(exp(x)) along an axis."""
    powers = x - x.max(axis, keepdims=True)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis, keepdims=True)
    return powers


def _scaled_dot_product_attention(
    query: MilArray, key: MilArray, value: MilArray, attn_mask: MilArray | None = None
) -> MilArray:
    """softmax(query key^T / sqrt(length) + mask) value; a mask of truth values says what takes part."""
    scores = query @ key.swapaxes(-1, -2)
    scores /= np.float32(math.sqrt(query.shape[-1]))
    if attn_mask is not None and attn_mask.dtype == np.bool_:
        scores = np.where(attn_mask, scores, np.float32(-math.inf))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return _softmax(scores) @ value


def _reduce(function: Callable[..., Any]) -> Op:
    """`function` over `axes`, or over all of them if there are none."""

    def op(x: MilArray, axes: Ints | None = None, keep_dims: bool = False) -> MilArray:
        return function(x, axis=axes, keepdims=keep_dims)

    return op


def _batch_norm(
    x: MilArray,
    mean: MilArray,
    variance: MilArray,
    gamma: MilArray | None = None,
    beta: MilArray | None = None,
    epsilon: float = 1e-5,
) -> MilArray:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, each with one number per channel."""
    ones = [1] * (x.ndim - 2)
    scale = 1 / np.sqrt(variance + epsilon)
    if gamma is not None:
        scale = scale * gamma
    result = (x - mean.reshape(-1, *ones)) * scale.reshape(-1, *ones)
    return result if beta is None else result + beta.reshape(-1, *ones)


def _layer_norm(
    x: MilArray,
    axes: Ints | None = None,
    gamma: MilArray | None = None,
    beta: MilArray | None = None,
    epsilon: float = 1e-5,
) -> MilArray:
    """(x - mean) / sqrt(variance + epsilon) over `axes` (None: all), times gamma and plus beta of those axes."""
    over = sorted({axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)})
    shape = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    result = x - x.mean(tuple(over), keepdims=True)
    result /= np.sqrt(np.square(result).mean(tuple(over), keepdims=True) + epsilon)
    if gamma is not None:
        result *= gamma.reshape(shape)
    if beta is not None:
        result += beta.reshape(shape)
    return result


@dataclass(frozen=True)
class Windows:
    """Windows that slide over spatial dimensions, one entry for each of these."""

    kernel: Ints
    strides: Ints
    dilations: Ints
    before: Ints  # what is added to the beginning
    after: Ints  # what is added to the end
    sizes: Ints  # the number of windows

    @classmethod
    def of(
        cls,
        shape: Ints,
        kernel: Ints,
        strides: Ints | None,
        dilations: Ints | None,
        pad_type: str,
        pad: Ints | None,
        ceil_mode: bool = False,
    ) -> Windows:
        """The windows over spatial dimensions of this shape; strides and dilations None for 1.

        With `ceil_mode` the last window may extend beyond the end, if it begins before it, as in PyTorch.
        """
        ones = (1,) * len(shape)
        strides, dilations = strides or ones, dilations or ones
        extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
        before, after = _paddings(shape, extent, strides, pad_type, pad)
        sizes, more = list[int](), list[int]()
        for n, r, s, first, last in zip(shape, extent, strides, before, after, strict=True):
            size = (n + first + last - r + (s - 1 if ceil_mode else 0)) // s + 1
            if ceil_mode and (size - 1) * s >= n + first:
                size -= 1
            if size < 1:
                raise ValueError(f"a window of {r} does not fit into {n} with {first} and {last} added")
            sizes.append(size)
            more.append(max(0, (size - 1) * s + r - n - first))
        after = tuple(map(max, after, more))
        return cls(kernel, strides, dilations, before, after, tuple(sizes))

    def over(self, x: MilArray, padding: float = 0.0) -> MilArray:
        """A view of all windows: x (n, channels, *spatial) as (n, channels, *sizes, *kernel)."""
        if any(self.before) or any(self.after):
            x = np.pad(x, [(0, 0), (0, 0), *zip(self.before, self.after, strict=True)], constant_values=padding)
        extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        view = sliding_window_view(x, extent, tuple(range(2, x.ndim)))  # type: ignore[call-overload]
        chosen = (slice(0, (size - 1) * s + 1, s) for size, s in zip(self.sizes, self.strides, strict=True))
        return view[(slice(None), slice(None), *chosen, *(slice(None, None, d) for d in self.dilations))]


def _paddings(shape: Ints, extent: Ints, strides: Ints, pad_type: str, pad: Ints | None) -> tuple[Ints, Ints]:
    """What is added before and after each dimension, of which a window covers `extent`.

    With "same" there is a window for every `stride` elements begun, as in TensorFlow; an odd element is added after.
    """
    if pad_type == "custom":
        if pad is None or len(pad) != 2 * len(shape):
            raise ValueError(f"pad_type 'custom' needs a pad of {2 * len(shape)} numbers, got {pad}")
        return pad[::2], pad[1::2]
    if pad_type == "valid":
        return (0,) * len(shape), (0,) * len(shape)
    if pad_type != "same":
        raise ValueError(f"unknown pad_type '{pad_type}'; known are: valid, custom, same")
    total = [max(0, (-(-n // s) - 1) * s + r - n) for n, r, s in zip(shape, extent, strides, strict=True)]
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


def _conv(
    x: MilArray,
    weight: MilArray,
    bias: MilArray | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> MilArray:
    """x (n, channels in, *spatial) with weight (channels out, channels in / groups, *kernel)."""
    outputs, inputs = weight.shape[:2]
    if x.shape[1] != inputs * groups or outputs % groups:
        raise ValueError(f"{x.shape[1]} channels do not fit weights {list(weight.shape)} in {groups} groups")
    windows = Windows.of(x.shape[2:], weight.shape[2:], strides, dilations, pad_type, pad)
    result = np.empty((len(x), outputs, *windows.sizes), x.dtype)
    for image, into in zip(windows.over(x), result, strict=True):
        if inputs == 1 and outputs == groups:
            _depthwise(image, weight[:, 0], into)
        else:
            _products(image, weight.reshape(groups, outputs // groups, -1), windows, into)
    if bias is not None:
        result += bias.reshape(-1, *[1] * len(windows.sizes))
    return result


def _products(image: MilArray, matrices: MilArray, windows: Windows, into: MilArray) -> None:
    """Write the windows of an image (channels, *sizes, *kernel), as columns, times the matrices of the groups."""
    groups, outputs, inner = matrices.shape
    if math.prod(windows.kernel) == 1 and set(windows.strides) == {1}:  # each window is one element
        np.matmul(matrices, image.reshape(groups, inner, -1), out=into.reshape(groups, outputs, -1))
        return
    length, *rest = windows.sizes
    columns = np.moveaxis(image, range(1, 1 + len(windows.sizes)), range(-len(windows.sizes), 0))
    step = max(1, _BYTES // (4 * groups * inner * math.prod(rest)))
    for first in range(0, length, step):
        part = np.ascontiguousarray(columns[(..., slice(first, first + step), *[slice(None)] * len(rest))])
        into[:, first : first + step] = (matrices @ part.reshape(groups, inner, -1)).reshape(len(into), -1, *rest)


def _depthwise(image: MilArray, kernels: MilArray, into: MilArray) -> None:
    """Write each channel of the windows of an image with a kernel of its own, some channels at a time."""
    step = max(1, _ELEMENTS // math.prod(into.shape[1:]))
    for first in range(0, len(image), step):
        some = slice(first, first + step)
        result = into[some]
        part = np.empty_like(result)
        result[...] = 0
        for tap in np.ndindex(*kernels.shape[1:]):
            factors = kernels[(some, *tap)].reshape(-1, *[1] * (result.ndim - 1))
            np.multiply(image[(some, ..., *tap)], factors, out=part)
            result += part


def _avg_pool(
    x: MilArray,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> MilArray:
    """The mean over each window: of its elements inside x, or of those inside x and its padding."""
    windows = Windows.of(x.shape[2:], kernel_sizes, strides, None, pad_type, pad, ceil_mode)
    seen = windows.over(x)
    total = np.zeros((*x.shape[:2], *windows.sizes), x.dtype)
    for tap in np.ndindex(*windows.kernel):
        total += seen[(..., *tap)]
    total /= _counts(x.shape[2:], windows, pad if pad_type == "custom" else None, exclude_padding_from_average)
    return total


def _counts(shape: Ints, windows: Windows, pad: Ints | None, inside: bool) -> MilArray:
    """How many elements each window sees: inside x, or inside x and its padding."""
    ends = windows.after if pad is None else pad[1::2]
    counts = np.float32(1)
    for axis, (n, first, end, size) in enumerate(zip(shape, windows.before, ends, windows.sizes, strict=True)):
        starts = np.arange(size) * windows.strides[axis] - first
        stops = np.minimum(starts + windows.kernel[axis], n if inside else n + end)
        seen = stops - (np.maximum(starts, 0) if inside else starts)
        counts = np.multiply.outer(counts, seen.astype(np.float32))
    return np.asarray(counts)


def _max_pool(
    x: MilArray,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> MilArray:
    """The greatest element of x in each window."""
    windows = Windows.of(x.shape[2:], kernel_sizes, strides, None, pad_type, pad, ceil_mode)
    seen = windows.over(x, padding=-math.inf)
    first, *others = (seen[(..., *tap)] for tap in np.ndindex(*windows.kernel))
    greatest = first.copy()
    for other in others:
        np.maximum(greatest, other, out=greatest)
    return greatest


REDUCTIONS: dict[str, Op] = {
    "avg_pool": _avg_pool,
    "batch_norm": _batch_norm,
    "conv": _conv,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "reduce_l2_norm": _reduce(lambda x, **over: np.sqrt(np.sum(np.square(x), **over))),
    "reduce_max": _reduce(np.max),
    "reduce_mean": _reduce(np.mean),
    "reduce_sum": _reduce(np.sum),
    "scaled_dot_product_attention": _scaled_dot_product_attention,
    "softmax": _softmax,
}
