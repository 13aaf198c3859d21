"""Matrix products, and attention."""

from __future__ import annotations

import math

import numpy as np

from ..elements import Array
from ..signatures import Arrays, Op
from .activation import softmax

__all__ = ["OPS"]


def _einsum(values: Arrays, equation: str) -> Array:
    """The product of two arrays that an equation describes."""
    return np.einsum(equation, *values, optimize=True)


def _linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x times the transpose of weight (outputs, inputs), plus bias."""
    product = x @ weight.T
    return product if bias is None else product + bias


def _matmul(x: Array, y: Array, transpose_x: bool = False, transpose_y: bool = False) -> Array:
    """The matrix product over the last two dimensions; a vector is a row on the left, a column on the right."""
    left = x.swapaxes(-1, -2) if transpose_x and x.ndim > 1 else x
    right = y.swapaxes(-1, -2) if transpose_y and y.ndim > 1 else y
    return np.matmul(left, right)


def _scaled_dot_product_attention(query: Array, key: Array, value: Array, attn_mask: Array | None = None) -> Array:
    """softmax(query key^T / sqrt(length) + mask) value; a mask of truth values says what takes part."""
    scores = query @ key.swapaxes(-1, -2)
    scores /= np.float32(math.sqrt(query.shape[-1]))
    if attn_mask is not None and attn_mask.dtype == np.bool_:
        scores = np.where(attn_mask, scores, np.float32(-math.inf))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return softmax(scores) @ value


OPS: dict[str, Op] = {
    "einsum": _einsum,
    "linear": _linear,
    "matmul": _matmul,
    "scaled_dot_product_attention": _scaled_dot_product_attention,
}
