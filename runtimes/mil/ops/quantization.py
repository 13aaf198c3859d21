"""Numbers as integers of 8 bits, with a scale and a zero."""

from __future__ import annotations

import numpy as np

from ..elements import Array
from ..signatures import Op

__all__ = ["OPS"]

_DTYPES = {"int8": np.int8, "uint8": np.uint8}


def _dequantize(input: Array, scale: Array, zero_point: Array | None = None, axis: int | None = None) -> Array:
    """scale * (input - zero_point), which are numbers, or vectors along `axis`."""
    values = input.astype(np.float32)
    if zero_point is not None:
        values -= _along(zero_point, axis, input.ndim)
    return values * _along(scale, axis, input.ndim)


def _quantize(
    input: Array, scale: Array, output_dtype: str, zero_point: Array | None = None, axis: int | None = None
) -> Array:
    """round(input / scale) + zero_point, not beyond what `output_dtype` can hold."""
    if output_dtype not in _DTYPES:
        raise ValueError(f"the output_dtype '{output_dtype}' is unknown; known are: {', '.join(_DTYPES)}")
    values = np.round(input / _along(scale, axis, input.ndim))
    if zero_point is not None:
        values += _along(zero_point, axis, input.ndim)
    limits = np.iinfo(_DTYPES[output_dtype])
    return np.clip(values, limits.min, limits.max).astype(_DTYPES[output_dtype])


def _along(parameter: Array, axis: int | None, dimensions: int) -> Array:
    """A parameter as float32, in the shape in which it is broadcast along `axis`."""
    if parameter.ndim and axis is None:
        raise ValueError(f"a vector of {parameter.size} parameters was found without an axis")
    shape = [1] * dimensions
    if axis is not None:
        shape[axis] = -1
    return parameter.astype(np.float32).reshape(shape if parameter.ndim else ())


OPS: dict[str, Op] = {"dequantize": _dequantize, "quantize": _quantize}
