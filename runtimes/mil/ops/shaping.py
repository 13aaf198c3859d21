"""Other shapes for the same elements, arrays put together, and new ones of a given shape."""

from __future__ import annotations

import numpy as np

from ..elements import Array
from ..signatures import Arrays, Ints, Op

__all__ = ["OPS"]


def _concat(values: Arrays, axis: int, interleave: bool = False) -> Array:
    """One array after the other along `axis`; interleaved, the first of each, the second of each, ..."""
    if values[0].ndim == 0:
        return np.stack(values)
    if not interleave:
        return np.concatenate(values, axis)
    axis %= values[0].ndim
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis + 1).reshape(shape)


def _depth_to_space(x: Array, block_size: int) -> Array:
    """Channels (block row, block column, channel) to blocks of pixels."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, block_size, block_size, -1, h, w).transpose(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // block_size**2, h * block_size, w * block_size)


def _expand_dims(x: Array, axes: Ints) -> Array:
    """Dimensions of size 1, counted as they are in the result."""
    return np.expand_dims(x, axes)


def _fill(shape: Ints, value: Array | None = None) -> Array:
    """An array of one number, 0 where none is given."""
    return np.full(shape, np.float32(0) if value is None else value)


def _fill_like(ref_tensor: Array, value: Array | None = None) -> Array:
    """An array of one number, in the shape of another."""
    return _fill(ref_tensor.shape, value)


def _pad(x: Array, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Array:
    """`pad` holds, for the last dimensions, how much is added before and after each."""
    if mode not in ("constant", "reflect", "replicate"):
        raise ValueError(f"the mode '{mode}' is unknown; known are: constant, reflect, replicate")
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return np.pad(x, widths, "constant", constant_values=constant_val)
    if mode == "reflect" and any(max(width) >= size for width, size in zip(widths, x.shape, strict=True)):
        raise ValueError(f"{list(pad)} was to be added by reflection, more than there is in {list(x.shape)}")
    return np.pad(x, widths, "reflect" if mode == "reflect" else "edge")


def _pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    """Channels (channel, block row, block column) to blocks of pixels."""
    n, c, h, w = x.shape
    f = upscale_factor
    return x.reshape(n, -1, f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // f**2, h * f, w * f)


def _pixel_unshuffle(x: Array, downscale_factor: int) -> Array:
    """Blocks of pixels to channels (channel, block row, block column)."""
    n, c, h, w = x.shape
    f = downscale_factor
    return x.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f**2, h // f, w // f)


def _range_1d(start: Array, end: Array, step: Array) -> Array:
    """start, start + step, ... below end."""
    return np.arange(start, end, step)


def _reshape(x: Array, shape: Ints) -> Array:
    """-1 is what is left; 0 is the size that x has there, counted from the last dimension, 1 where it has none."""
    missing = len(shape) - x.ndim
    return x.reshape([size or (x.shape[i - missing] if i >= missing else 1) for i, size in enumerate(shape)])


def _reshape_like(x: Array, ref_tensors: Arrays, begins: Arrays, ends: Arrays, end_masks: Arrays) -> Array:
    """The sizes from `begins` to `ends` of each of the other arrays, one after the other; masked, to the last."""
    shape: list[int] = []
    for other, begin, end, mask in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape += other.shape[int(begin) : None if mask else int(end)]
    return x.reshape(shape)


def _shape(x: Array) -> Array:
    """The size of each dimension."""
    return np.array(x.shape, np.int32)


def _space_to_depth(x: Array, block_size: int) -> Array:
    """Blocks of pixels to channels (block row, block column, channel)."""
    n, c, h, w = x.shape
    b = block_size
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


def _squeeze(x: Array, axes: Ints | None = None) -> Array:
    """Without those of `axes`, or of all dimensions, that have the size 1."""
    over = {axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)}
    return np.squeeze(x, tuple(axis for axis in over if x.shape[axis] == 1))


def _stack(values: Arrays, axis: int) -> Array:
    """The arrays along a new dimension."""
    return np.stack(values, axis)


def _tile(x: Array, reps: Ints) -> Array:
    """x repeated along each dimension."""
    return np.tile(x, reps)


def _transpose(x: Array, perm: Ints) -> Array:
    """The dimensions in another order."""
    return x.transpose(perm)


OPS: dict[str, Op] = {
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "fill": _fill,
    "fill_like": _fill_like,
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "range_1d": _range_1d,
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "shape": _shape,
    "space_to_depth": _space_to_depth,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
