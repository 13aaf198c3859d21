"""Functions of one or two numbers, for each element; two arrays are broadcast as NumPy does it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from ..values import MilArray, Op

__all__ = ["ELEMENTWISE", "erf"]

_CAST = {  # as the parameter names types
    "bool": np.bool_,
    "fp16": np.float32,  # rounded afterwards, where the arithmetic says so
    "fp32": np.float32,
    "int16": np.int16,
    "int32": np.int32,
    "int8": np.int8,
    "uint16": np.uint16,
    "uint8": np.uint8,
}
_BLOCK = 1 << 15  # elements that stay in the cache while several passes go over them
_ERF_END = 4.0  # from here on the error function is 1 in float32
_ERF_DEGREE = 11


def _unary(function: Callable[[MilArray], MilArray]) -> Op:
    """The op that is a function of one number."""

    def op(x: MilArray) -> MilArray:
        return function(x)

    return op


def _binary(function: Callable[[MilArray, MilArray], MilArray]) -> Op:
    """The op that is a function of two numbers."""

    def op(x: MilArray, y: MilArray) -> MilArray:
        return function(x, y)

    return op


def _in_blocks(function: Op) -> Op:
    """`function`, which works element by element in several passes, applied to parts that fit the cache."""

    @wraps(function)
    def op(x: MilArray, **parameters: object) -> MilArray:
        if x.size <= _BLOCK:
            return function(x, **parameters)
        source = np.ascontiguousarray(x)
        result = np.empty_like(source)
        flat, into = source.reshape(-1), result.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            into[start : start + _BLOCK] = function(flat[start : start + _BLOCK], **parameters)
        return result

    return op


def _cast(x: MilArray, dtype: str) -> MilArray:
    """The same numbers in another type; a fraction is cut off where that type has none."""
    if dtype not in _CAST:
        raise ValueError(f"unknown type '{dtype}'; known are: {', '.join(_CAST)}")
    return x.astype(_CAST[dtype])


def _clip(x: MilArray, alpha: float, beta: float) -> MilArray:
    return np.clip(x, x.dtype.type(alpha), x.dtype.type(beta))


def _log(x: MilArray, epsilon: float = 1e-45) -> MilArray:
    return np.log(x + epsilon)


def _rsqrt(x: MilArray, epsilon: float = 1e-12) -> MilArray:
    return 1 / np.sqrt(x + epsilon)


def _erf_series() -> list[np.float32]:
    """Coefficients of p, highest first, where erf(t) = 1 - exp(-t p(t)) for t in 0.._ERF_END."""

    def exponent(t: float) -> float:
        return -math.log(math.erfc(t)) / t if t else 2 / math.sqrt(math.pi)

    series = Chebyshev.interpolate(np.vectorize(exponent), _ERF_DEGREE, [0, _ERF_END])
    plain = series.convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1])
    return [np.float32(coefficient) for coefficient in plain.coef[::-1]]


_ERF_SERIES = _erf_series()


def erf(x: MilArray) -> MilArray:
    """The error function, to about 1e-7."""
    t = np.minimum(np.abs(x), np.float32(_ERF_END))
    exponent = np.full_like(t, _ERF_SERIES[0])
    for coefficient in _ERF_SERIES[1:]:
        exponent *= t
        exponent += coefficient
    exponent *= t
    return np.copysign(np.expm1(np.negative(exponent, out=exponent), out=exponent), x)


_GELU: dict[str, Callable[[MilArray], MilArray]] = {
    "EXACT": lambda x: 0.5 * x * (1 + erf(x * np.float32(math.sqrt(0.5)))),
    "TANH_APPROXIMATION": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))),
}


@_in_blocks
def _gelu(x: MilArray, mode: str = "EXACT") -> MilArray:
    """x times the normal distribution function of x, or an approximation of it."""
    if mode not in _GELU:
        raise ValueError(f"unknown mode '{mode}'; known are: {', '.join(_GELU)}")
    return _GELU[mode](x)


def _leaky_relu(x: MilArray, alpha: float) -> MilArray:
    return np.where(x >= 0, x, np.float32(alpha) * x)


ELEMENTWISE: dict[str, Op] = {
    # NumPy has these under the same names.
    **{name: _unary(getattr(np, name)) for name in ("abs", "cos", "exp", "floor", "sin", "sqrt", "square", "tanh")},
    **{name: _binary(getattr(np, name)) for name in ("add", "greater", "maximum", "minimum")},
    "cast": _cast,
    "clip": _clip,
    "floor_div": _binary(np.floor_divide),
    "gelu": _gelu,
    "identity": _unary(np.asarray),
    "leaky_relu": _leaky_relu,
    "log": _log,
    "mul": _binary(np.multiply),
    "pow": _binary(np.power),
    "real_div": _binary(np.divide),
    "relu": _unary(lambda x: np.maximum(x, np.float32(0))),
    "relu6": _unary(lambda x: np.clip(x, np.float32(0), np.float32(6))),
    "rsqrt": _rsqrt,
    "sigmoid": _unary(_in_blocks(lambda x: 1 / (1 + np.exp(-x)))),
    "silu": _unary(_in_blocks(lambda x: x / (1 + np.exp(-x)))),
    "softplus": _unary(_in_blocks(lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0))),  # exp cannot overflow
    "sub": _binary(np.subtract),
}
