"""Constants that a package holds compressed: the `constexpr` ops, which are evaluated when a program is read.

The arithmetic is done in the type that the result is declared to have, as the definitions have it.
"""

from __future__ import annotations

import math

import numpy as np

from .elements import Array, unpacked
from .signatures import Ints, Op

__all__ = ["CONSTEXPR"]


def _affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: int) -> Array:
    """scale * (quantized_data - zero_point), where scale and zero_point are scalars or vectors along `axis`."""
    shape = [1] * quantized_data.ndim
    shape[axis] = -1
    scale, zero = (part.reshape(shape if part.ndim else ()) for part in (scale, zero_point))
    return scale * (quantized_data.astype(scale.dtype) - zero.astype(scale.dtype))


def _blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """scale * (data - offset), where each element of scale and offset belongs to a block of `data`."""
    values = data.astype(scale.dtype)
    if offset is not None:
        values = values - _spread(offset.astype(scale.dtype), data.shape)
    return _spread(scale, data.shape) * values


def _cast(source_val: Array, output_dtype: str) -> Array:
    """The same numbers in another type, which is float32."""
    if output_dtype != "fp32":
        raise ValueError(f"output_dtype '{output_dtype}' was found, 'fp32' is the only one there is")
    return source_val.astype(np.float32)


def _lut_to_dense(indices: Array, lut: Array, shape: Ints | None = None, vector_axis: int | None = None) -> Array:
    """Entries of a table. With `shape`, the table is flat and the indices are packed bits; without, `lut` has the
    dimensions of `indices`, in blocks of which it holds a table each, then (entries, length of an entry).
    """
    if shape is not None:
        return lut[unpacked(indices, math.prod(shape), int(math.log2(len(lut))))].reshape(shape)
    blocks = np.indices(indices.shape, sparse=True)
    repeats = [size // tables for size, tables in zip(indices.shape, lut.shape, strict=False)]
    chosen = lut[(*(block // repeat for block, repeat in zip(blocks, repeats, strict=True)), indices)]
    return _along(chosen, vector_axis)


def _along(vectors: Array, axis: int | None) -> Array:
    """Lay the vectors of the last dimension along `axis`, in which they follow each other."""
    *shape, length = vectors.shape
    if axis is None:
        if length != 1:
            raise ValueError(f"entries of {length} numbers were found, which need a vector_axis")
        return vectors[..., 0]
    axis %= len(shape)
    shape[axis] *= length
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


def _sparse_to_dense(nonzero_data: Array, mask: Array, shape: Ints | None = None) -> Array:
    """`nonzero_data` where `mask` is set, elsewhere 0. With `shape`, the mask is packed bits of that shape."""
    if shape is not None:
        mask = unpacked(mask, math.prod(shape), bits=1).reshape(shape)
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


def _lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: int | None = None
) -> tuple[Array, Array]:
    """`constexpr_lut_to_dense` of the elements that are not 0: their mask, and they."""
    dense = _lut_to_dense(_sparse_to_dense(indices_nonzero_data, indices_mask), lut, None, vector_axis)
    mask = indices_mask if vector_axis is None else np.repeat(indices_mask, lut.shape[-1], vector_axis)
    return mask, dense[mask != 0]


def _sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """`constexpr_blockwise_shift_scale` of the elements that are not 0: their mask, and they."""
    dense = _blockwise_shift_scale(_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def _spread(blocks: Array, shape: Ints) -> Array:
    """Repeat each element over its block of an array of `shape`."""
    if blocks.ndim != len(shape) or any(size % parts for size, parts in zip(shape, blocks.shape, strict=True)):
        raise ValueError(f"parameters of the shape {list(blocks.shape)} do not divide {list(shape)} into blocks")
    for axis, size in enumerate(shape):
        blocks = np.repeat(blocks, size // blocks.shape[axis], axis)
    return blocks


CONSTEXPR: dict[str, Op] = {
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "constexpr_cast": _cast,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_lut_to_sparse": _lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": _sparse_to_dense,
}
