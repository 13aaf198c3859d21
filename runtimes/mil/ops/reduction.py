"""Sums of many elements: matrix products, attention, reductions, normalization."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..values import Ints, MilArray, Op

__all__ = ["REDUCTIONS"]


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


REDUCTIONS: dict[str, Op] = {
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "reduce_l2_norm": _reduce(lambda x, **over: np.sqrt(np.sum(np.square(x), **over))),
    "reduce_max": _reduce(np.max),
    "reduce_mean": _reduce(np.mean),
    "reduce_sum": _reduce(np.sum),
    "scaled_dot_product_attention": _scaled_dot_product_attention,
    "softmax": _softmax,
}
