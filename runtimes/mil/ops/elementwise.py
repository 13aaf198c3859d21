"""Functions of one or two numbers, for each element; two arrays are broadcast as NumPy does it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..elements import Array
from ..signatures import Op

__all__ = ["DTYPES", "OPS", "unary"]

DTYPES = {  # as a parameter names them
    "bool": np.bool_,
    "fp16": np.float32,  # rounded afterwards, where the arithmetic says so
    "fp32": np.float32,
    "int16": np.int16,
    "int32": np.int32,
    "int8": np.int8,
    "uint16": np.uint16,
    "uint8": np.uint8,
}


def unary(function: Callable[[Array], Array]) -> Op:
    """The op that is a function of one number."""

    def op(x: Array) -> Array:
        return function(x)

    return op


def _binary(function: Callable[[Array, Array], Array]) -> Op:
    """The op that is a function of two numbers."""

    def op(x: Array, y: Array) -> Array:
        return function(x, y)

    return op


def _cast(x: Array, dtype: str) -> Array:
    """The same numbers in another type; a fraction is cut off where that type has none."""
    if dtype not in DTYPES:
        raise ValueError(f"the type '{dtype}' is unknown; known are: {', '.join(DTYPES)}")
    return x.astype(DTYPES[dtype])


def _clip(x: Array, alpha: float, beta: float) -> Array:
    """x, but not below alpha nor above beta."""
    return np.clip(x, x.dtype.type(alpha), x.dtype.type(beta))


def _inverse(x: Array, epsilon: float = 1e-4) -> Array:
    """1 / (x + epsilon)."""
    return 1 / (x + epsilon)


def _log(x: Array, epsilon: float = 1e-45) -> Array:
    """log(x + epsilon)."""
    return np.log(x + epsilon)


def _rsqrt(x: Array, epsilon: float = 1e-12) -> Array:
    """1 / sqrt(x + epsilon)."""
    return 1 / np.sqrt(x + epsilon)


def _threshold(x: Array, alpha: float) -> Array:
    """x, but not below alpha."""
    return np.maximum(x, x.dtype.type(alpha))


OPS: dict[str, Op] = {
    "abs": unary(np.abs),
    "add": _binary(np.add),
    "cast": _cast,
    "ceil": unary(np.ceil),
    "clip": _clip,
    "cos": unary(np.cos),
    "equal": _binary(np.equal),
    "exp": unary(np.exp),
    "exp2": unary(np.exp2),
    "floor": unary(np.floor),
    "floor_div": _binary(np.floor_divide),
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "identity": unary(np.asarray),
    "inverse": _inverse,
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "log": _log,
    "logical_and": _binary(np.logical_and),
    "logical_not": unary(np.logical_not),
    "logical_or": _binary(np.logical_or),
    "logical_xor": _binary(np.logical_xor),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "not_equal": _binary(np.not_equal),
    "pow": _binary(np.power),
    "real_div": _binary(np.divide),
    "round": unary(np.round),
    "rsqrt": _rsqrt,
    "sign": unary(np.sign),
    "sin": unary(np.sin),
    "sqrt": unary(np.sqrt),
    "square": unary(np.square),
    "sub": _binary(np.subtract),
    "threshold": _threshold,
}
