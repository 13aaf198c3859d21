"""One number for all elements along some dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..elements import Array
from ..signatures import Ints, Op
from .elementwise import DTYPES

__all__ = ["OPS"]


def _reduce(function: Callable[..., Any]) -> Op:
    """`function` over `axes`, all without them."""

    def op(x: Array, axes: Ints | None = None, keep_dims: bool = False) -> Array:
        return function(x, axis=axes, keepdims=keep_dims)

    return op


def _place(function: Callable[..., Any]) -> Op:
    """Where along `axis` the element is that `function` looks for."""

    def op(x: Array, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Array:
        return function(x, axis=axis, keepdims=keep_dims).astype(DTYPES[output_dtype])

    return op


def _l1_norm(x: Array, axis: Ints | None, keepdims: bool) -> Array:
    return np.sum(np.abs(x), axis=axis, keepdims=keepdims)


def _l2_norm(x: Array, axis: Ints | None, keepdims: bool) -> Array:
    return np.sqrt(_sum_square(x, axis, keepdims))


def _log_sum(x: Array, axis: Ints | None, keepdims: bool) -> Array:
    return np.log(np.sum(x, axis=axis, keepdims=keepdims))


def _log_sum_exp(x: Array, axis: Ints | None, keepdims: bool) -> Array:
    """Without the overflow of exp."""
    greatest = np.max(x, axis=axis, keepdims=True)
    logarithm = np.log(np.sum(np.exp(x - greatest), axis=axis, keepdims=True)) + greatest
    return logarithm if keepdims else np.squeeze(logarithm, axis)


def _sum_square(x: Array, axis: Ints | None, keepdims: bool) -> Array:
    return np.sum(np.square(x), axis=axis, keepdims=keepdims)


OPS: dict[str, Op] = {
    "reduce_argmax": _place(np.argmax),
    "reduce_argmin": _place(np.argmin),
    "reduce_l1_norm": _reduce(_l1_norm),
    "reduce_l2_norm": _reduce(_l2_norm),
    "reduce_log_sum": _reduce(_log_sum),
    "reduce_log_sum_exp": _reduce(_log_sum_exp),
    "reduce_max": _reduce(np.max),
    "reduce_mean": _reduce(np.mean),
    "reduce_min": _reduce(np.min),
    "reduce_prod": _reduce(np.prod),
    "reduce_sum": _reduce(np.sum),
    "reduce_sum_square": _reduce(_sum_square),
}
