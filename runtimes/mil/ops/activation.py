"""Activation functions, for each element, and the softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from ..elements import Array
from ..signatures import Op
from .elementwise import unary

__all__ = ["OPS", "softmax"]

_BLOCK = 1 << 15  # elements that stay in the cache while several passes go over them
_ERF_END = 4.0  # from here on the error function is 1 in float32
_ERF_DEGREE = 11


def _in_blocks(function: Op) -> Op:
    """`function`, which works element by element in several passes, applied to parts that fit the cache."""

    @wraps(function)
    def op(x: Array, **parameters: object) -> Array:
        if x.size <= _BLOCK:
            return function(x, **parameters)
        source = np.ascontiguousarray(x)
        result = np.empty_like(source)
        flat, into = source.reshape(-1), result.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            into[start : start + _BLOCK] = function(flat[start : start + _BLOCK], **parameters)
        return result

    return op


def _clamped_relu(x: Array, alpha: float, beta: float) -> Array:
    """min(x, beta) where x >= 0, elsewhere min(alpha * x, beta)."""
    return np.minimum(_leaky_relu(x, alpha), np.float32(beta))


@_in_blocks
def _elu(x: Array, alpha: float) -> Array:
    """x where x > 0, elsewhere alpha * (exp(x) - 1)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _erf_series() -> list[np.float32]:
    """Coefficients of p, highest first, where erf(t) = 1 - exp(-t p(t)) for t in 0.._ERF_END."""

    def exponent(t: float) -> float:
        return -math.log(math.erfc(t)) / t if t else 2 / math.sqrt(math.pi)

    series = Chebyshev.interpolate(np.vectorize(exponent), _ERF_DEGREE, [0, _ERF_END])
    plain = series.convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1])
    return [np.float32(coefficient) for coefficient in plain.coef[::-1]]


_ERF_SERIES = _erf_series()


@_in_blocks
def _erf(x: Array) -> Array:
    """The error function, to about 1e-7."""
    t = np.minimum(np.abs(x), np.float32(_ERF_END))
    exponent = np.full_like(t, _ERF_SERIES[0])
    for coefficient in _ERF_SERIES[1:]:
        exponent *= t
        exponent += coefficient
    exponent *= t
    return np.copysign(np.expm1(np.negative(exponent, out=exponent), out=exponent), x)


def _gelu_exact(x: Array) -> Array:
    return 0.5 * x * (1 + _erf(x * np.float32(math.sqrt(0.5))))


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _gelu_sigmoid(x: Array) -> Array:
    return x * _sigmoid(1.702 * x)


_GELU: dict[str, Callable[[Array], Array]] = {
    "EXACT": _gelu_exact,
    "TANH_APPROXIMATION": _gelu_tanh,
    "SIGMOID_APPROXIMATION": _gelu_sigmoid,
}


@_in_blocks
def _gelu(x: Array, mode: str = "EXACT") -> Array:
    """x times the normal distribution function of x, or one of two approximations of it."""
    if mode not in _GELU:
        raise ValueError(f"the mode '{mode}' is unknown; known are: {', '.join(_GELU)}")
    return _GELU[mode](x)


def _leaky_relu(x: Array, alpha: float) -> Array:
    """x where x >= 0, elsewhere alpha * x."""
    return np.where(x >= 0, x, np.float32(alpha) * x)


def _linear_activation(x: Array, alpha: float, beta: float) -> Array:
    """alpha * x + beta."""
    return np.float32(alpha) * x + np.float32(beta)


def _prelu(x: Array, alpha: Array) -> Array:
    """x where x > 0, elsewhere alpha * x, with an alpha for each channel, the second dimension."""
    return np.where(x > 0, x, alpha.reshape(-1, *[1] * (x.ndim - 2)) * x)


def _relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, np.float32(0))


def _relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return np.clip(x, np.float32(0), np.float32(6))


@_in_blocks
def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def _sigmoid_hard(x: Array, alpha: float, beta: float) -> Array:
    """min(max(alpha * x + beta, 0), 1)."""
    return np.clip(_linear_activation(x, alpha, beta), np.float32(0), np.float32(1))


@_in_blocks
def _silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    return x / (1 + np.exp(-x))


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along an axis."""
    powers = x - x.max(axis, keepdims=True)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis, keepdims=True)
    return powers


@_in_blocks
def _softplus(x: Array) -> Array:
    """log(1 + exp(x)), without the overflow of exp."""
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def _softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    return x / (1 + np.abs(x))


OPS: dict[str, Op] = {
    "clamped_relu": _clamped_relu,
    "elu": _elu,
    "erf": _erf,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "linear_activation": _linear_activation,
    "prelu": _prelu,
    "relu": _relu,
    "relu6": _relu6,
    "sigmoid": _sigmoid,
    "sigmoid_hard": _sigmoid_hard,
    "silu": _silu,
    "softmax": softmax,
    "softplus": _softplus,
    "softsign": _softsign,
    "tanh": unary(np.tanh),
}
