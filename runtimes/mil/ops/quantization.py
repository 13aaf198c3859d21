"""Numbers in fewer bits: as activations, and as constants that a package holds compressed.

Compressed constants are `constexpr` ops, which are evaluated when a program is read. Their arithmetic is done in the
type that the result is declared to have, as the definitions have it.
"""

from __future__ import annotations

import math

import numpy as np

from ..values import Ints, MilArray, Op, unpacked

__all__ = ["CONSTEXPR", "QUANTIZATION"]

_DTYPES = {"int8": np.int8, "uint8": np.uint8}


def _dequantize(
    input: MilArray, scale: MilArray, zero_point: MilArray | None = None, axis: int | None = None
) -> MilArray:
    """scale * (input - zero_point), which are numbers, or vectors along `axis`."""
    values = input.astype(np.float32)
    if zero_point is not None:
        values -= _along(zero_point, axis, input.ndim).astype(np.float32)
    return values * _along(scale, axis, input.ndim).astype(np.float32)


def _quantize(
    input: MilArray, scale: MilArray, output_dtype: str, zero_point: MilArray | None = None, axis: int | None = None
) -> MilArray:
    """round(input / scale) + zero_point, within the range of `output_dtype`."""
    if output_dtype not in _DTYPES:
        raise ValueError(f"unknown output_dtype '{output_dtype}'; known are: {', '.join(_DTYPES)}")
    values = np.round(input / _along(scale, axis, input.ndim).astype(np.float32))
    if zero_point is not None:
        values += _along(zero_point, axis, input.ndim).astype(np.float32)
    limits = np.iinfo(_DTYPES[output_dtype])
    return np.clip(values, limits.min, limits.max).astype(_DTYPES[output_dtype])


def _along(parameter: MilArray, axis: int | None, dimensions: int) -> MilArray:
    """A number, or a vector in the shape in which it is broadcast along `axis`."""
    if not parameter.ndim:
        return parameter
    if axis is None:
        raise ValueError(f"a vector of {parameter.size} parameters needs an axis")
    shape = [1] * dimensions
    shape[axis] = -1
    return parameter.reshape(shape)


def _affine_dequantize(quantized_data: MilArray, zero_point: MilArray, scale: MilArray, axis: int) -> MilArray:
    """scale * (quantized_data - zero_point), where scale and zero_point are scalars or vectors along `axis`."""
    scale, zero = (_along(part, axis, quantized_data.ndim) for part in (scale, zero_point))
    return scale * (quantized_data.astype(scale.dtype) - zero.astype(scale.dtype))


def _blockwise_shift_scale(data: MilArray, scale: MilArray, offset: MilArray | None = None) -> MilArray:
    """scale * (data - offset), where each element of scale and offset belongs to a block of `data`."""
    values = data.astype(scale.dtype)
    if offset is not None:
        values = values - _spread(offset.astype(scale.dtype), data.shape)
    return _spread(scale, data.shape) * values


def _spread(blocks: MilArray, shape: Ints) -> MilArray:
    """Repeat each element over its block of an array of `shape`."""
    if blocks.ndim != len(shape) or any(size % parts for size, parts in zip(shape, blocks.shape, strict=True)):
        raise ValueError(f"parameters of the shape {list(blocks.shape)} do not divide {list(shape)} into blocks")
    for axis, size in enumerate(shape):
        blocks = np.repeat(blocks, size // blocks.shape[axis], axis)
    return blocks


def _constant_cast(source_val: MilArray, output_dtype: str) -> MilArray:
    """The same numbers in another type, which is float32."""
    if output_dtype != "fp32":
        raise ValueError(f"expected the output_dtype 'fp32', got '{output_dtype}'")
    return source_val.astype(np.float32)


def _lut_to_dense(indices: MilArray, lut: MilArray, shape: Ints | None = None) -> MilArray:
    """Entries of a table.

    With `shape`, the table is flat and the indices are packed bits; without, `lut` has the dimensions of `indices`, in
    blocks of which it holds a table each, then (entries, 1).
    """
    if shape is not None:
        return lut[unpacked(indices, math.prod(shape), int(math.log2(len(lut))))].reshape(shape)
    if lut.shape[-1] != 1:
        raise ValueError(f"expected a table of numbers, got one of vectors of {lut.shape[-1]}")
    blocks = np.indices(indices.shape, sparse=True)
    repeats = [size // tables for size, tables in zip(indices.shape, lut.shape, strict=False)]
    return lut[(*(block // repeat for block, repeat in zip(blocks, repeats, strict=True)), indices, 0)]


QUANTIZATION: dict[str, Op] = {"dequantize": _dequantize, "quantize": _quantize}
CONSTEXPR: dict[str, Op] = {
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "constexpr_cast": _constant_cast,
    "constexpr_lut_to_dense": _lut_to_dense,
}
