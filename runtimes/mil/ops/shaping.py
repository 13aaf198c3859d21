"""Other shapes for the same elements, parts of arrays, arrays put together, images of another size."""

from __future__ import annotations

import math

import numpy as np

from ..values import ArrayTuple, Ints, MilArray, Op

__all__ = ["SHAPING"]


def _concat(values: ArrayTuple, axis: int, interleave: bool = False) -> MilArray:
    """One array after the other along `axis`; numbers become a vector."""
    if interleave:
        raise ValueError("interleaved arrays are not supported")
    return np.concatenate(values, axis) if values[0].ndim else np.stack(values)


def _expand_dims(x: MilArray, axes: Ints) -> MilArray:
    """Dimensions of size 1, counted as they are in the result."""
    return np.expand_dims(x, axes)


def _fill(shape: Ints, value: MilArray | None = None) -> MilArray:
    """An array of one number, 0 by default."""
    return np.full(shape, np.float32(0) if value is None else value)


def _gather(
    x: MilArray, indices: MilArray, axis: int = 0, batch_dims: int = 0, validate_indices: bool | None = None
) -> MilArray:
    """The slices of x along `axis` that `indices` name.

    Negative indices count from the end, but not in the versions that have `validate_indices`, where they are undefined.
    """
    if validate_indices is not None and np.any(indices < 0):
        raise ValueError(f"expected indices from 0, got {indices.min()}")
    if batch_dims:
        raise ValueError(f"expected batch_dims 0, got {batch_dims}")
    return np.take(x, indices, axis)


def _pad(x: MilArray, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> MilArray:
    """`pad` holds, for the last dimensions, how much is added before and after each."""
    if mode not in ("constant", "reflect", "replicate"):
        raise ValueError(f"unknown mode '{mode}'; known are: constant, reflect, replicate")
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return np.pad(x, widths, "constant", constant_values=constant_val)
    if mode == "reflect" and any(max(width) >= size for width, size in zip(widths, x.shape, strict=True)):
        raise ValueError(f"a reflection cannot add {list(pad)} to {list(x.shape)}: it has less than that")
    return np.pad(x, widths, "reflect" if mode == "reflect" else "edge")


def _pixel_shuffle(x: MilArray, upscale_factor: int) -> MilArray:
    """Channels (channel, block row, block column) to blocks of pixels."""
    (n, c, h, w), f = x.shape, upscale_factor
    return x.reshape(n, -1, f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // f**2, h * f, w * f)


def _pixel_unshuffle(x: MilArray, downscale_factor: int) -> MilArray:
    """Blocks of pixels to channels (channel, block row, block column)."""
    (n, c, h, w), f = x.shape, downscale_factor
    return x.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f**2, h // f, w // f)


def _reshape(x: MilArray, shape: Ints) -> MilArray:
    """-1 is the rest; 0 is the size that x has there, counted from the last dimension, 1 where it has none."""
    missing = len(shape) - x.ndim
    return x.reshape([size or (x.shape[i - missing] if i >= missing else 1) for i, size in enumerate(shape)])


def _shape(x: MilArray) -> MilArray:
    return np.array(x.shape, np.int32)


def _slice_by_index(
    x: MilArray,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Ints | None = None,
    end_mask: Ints | None = None,
    squeeze_mask: Ints | None = None,
) -> MilArray:
    """x[begin:end:stride] in each dimension, without the bounds that are masked; squeezed ones keep only x[begin]."""
    none = (0,) * x.ndim
    steps = stride or (1,) * x.ndim
    no_begin, no_end, single = begin_mask or none, end_mask or none, squeeze_mask or none
    parts = [
        begin[i] if single[i] else slice(None if no_begin[i] else begin[i], None if no_end[i] else end[i], steps[i])
        for i in range(x.ndim)
    ]
    return x[tuple(parts)]


def _slice_by_size(x: MilArray, begin: Ints, size: Ints) -> MilArray:
    """`size` elements from `begin` on in each dimension, all that follow for -1."""
    starts = tuple(first % n if first < 0 else first for first, n in zip(begin, x.shape, strict=True))
    stops = [n if many == -1 else first + many for first, many, n in zip(starts, size, x.shape, strict=True)]
    if any(stop > n for stop, n in zip(stops, x.shape, strict=True)):
        raise ValueError(f"{list(x.shape)} has fewer than {list(size)} elements from {list(begin)} on")
    return x[tuple(map(slice, starts, stops))]


def _split(
    x: MilArray, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> tuple[MilArray, ...]:
    """x in parts along `axis`, of the sizes given or, without them, all of one size."""
    total = x.shape[axis]
    if split_sizes is None:
        if not num_splits or total % num_splits:
            raise ValueError(f"{total} cannot be split into {num_splits} equal parts")
        split_sizes = (total // num_splits,) * num_splits
    if sum(split_sizes) != total:
        raise ValueError(f"the sizes {list(split_sizes)} do not add up to {total}")
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], axis))


def _squeeze(x: MilArray, axes: Ints | None = None) -> MilArray:
    """Without those of `axes` (None: all) that have the size 1."""
    over = {axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)}
    return np.squeeze(x, tuple(axis for axis in over if x.shape[axis] == 1))


def _stack(values: ArrayTuple, axis: int) -> MilArray:
    return np.stack(values, axis)


def _tile(x: MilArray, reps: Ints) -> MilArray:
    return np.tile(x, reps)


def _transpose(x: MilArray, perm: Ints) -> MilArray:
    return x.transpose(perm)


def _upsample_bilinear(
    x: MilArray,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> MilArray:
    """The last two dimensions times the factors, rounded down."""
    if align_corners and half_pixel_centers:
        raise ValueError("align_corners and half_pixel_centers exclude each other")
    for axis, factor in ((-2, scale_factor_height), (-1, scale_factor_width)):
        size = x.shape[axis]
        wanted = math.floor(size * factor)
        i = np.arange(wanted, dtype=np.float64)
        if align_corners:
            grid = i * (size - 1) / max(1, wanted - 1)
        else:
            grid = i * size / wanted if half_pixel_centers is False else (i + 0.5) * size / wanted - 0.5
        x = _interpolated(x, axis, np.clip(grid, 0, size - 1))
    return x


def _interpolated(x: MilArray, axis: int, grid: MilArray) -> MilArray:
    """x between its elements along `axis`."""
    low = np.floor(grid).astype(np.int64)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = -1
    share = (grid - low).astype(np.float32).reshape(shape)
    below, above = np.take(x, low, axis), np.take(x, high, axis)
    return below + (above - below) * share


def _upsample_nearest_neighbor(x: MilArray, scale_factor_height: float = 1, scale_factor_width: float = 1) -> MilArray:
    """Each element of the last two dimensions repeated; fractions of a repetition are undocumented."""
    if scale_factor_height % 1 or scale_factor_width % 1:
        raise ValueError(f"the factors {scale_factor_height}, {scale_factor_width} are not both whole numbers")
    return x.repeat(int(scale_factor_height), -2).repeat(int(scale_factor_width), -1)


SHAPING: dict[str, Op] = {
    "concat": _concat,
    "expand_dims": _expand_dims,
    "fill": _fill,
    "gather": _gather,
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "reshape": _reshape,
    "shape": _shape,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest_neighbor,
}
