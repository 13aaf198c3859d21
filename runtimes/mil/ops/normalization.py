"""Normalization over channels, images and other dimensions."""

from __future__ import annotations

import numpy as np

from ..elements import Array
from ..signatures import Ints, Op

__all__ = ["OPS"]


def _batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, each of them a number for each channel."""
    scale = 1 / np.sqrt(variance + epsilon)
    if gamma is not None:
        scale = scale * gamma
    result = (x - _by_channel(mean, x)) * _by_channel(scale, x)
    return result if beta is None else result + _by_channel(beta, x)


def _by_channel(vector: Array, x: Array) -> Array:
    return vector.reshape(-1, *[1] * (x.ndim - 2))


def _instance_norm(x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: float = 1e-5) -> Array:
    """(x - mean) / sqrt(variance + epsilon) over the spatial dimensions, times gamma and plus beta of the channel."""
    result = _standardized(x, tuple(range(2, x.ndim)), epsilon)
    if gamma is not None:
        result *= _by_channel(gamma, x)
    if beta is not None:
        result += _by_channel(beta, x)
    return result


def _layer_norm(
    x: Array,
    axes: Ints | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) over `axes`, all without them, times gamma and plus beta of those axes."""
    over = {axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)}
    shape = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    result = _standardized(x, tuple(sorted(over)), epsilon)
    if gamma is not None:
        result *= gamma.reshape(shape)
    if beta is not None:
        result += beta.reshape(shape)
    return result


def _standardized(x: Array, axes: Ints, epsilon: float) -> Array:
    """A new array: x with the mean 0 and, but for epsilon, the variance 1 over `axes`."""
    result = x - x.mean(axes, keepdims=True)
    result /= np.sqrt(np.square(result).mean(axes, keepdims=True) + epsilon)
    return result


def _l2_norm(x: Array, epsilon: float = 1e-6) -> Array:
    """x / sqrt(sum(x^2) + epsilon), the sum over the last three dimensions."""
    return x / np.sqrt(np.square(x).sum((-3, -2, -1), keepdims=True) + epsilon)


OPS: dict[str, Op] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
}
