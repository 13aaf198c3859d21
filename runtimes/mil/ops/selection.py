"""Parts of arrays, and choices between arrays."""

from __future__ import annotations

import numpy as np

from ..elements import Array
from ..signatures import Ints, Op

__all__ = ["OPS"]


def _gather(
    x: Array, indices: Array, axis: int = 0, batch_dims: int = 0, validate_indices: bool | None = None
) -> Array:
    """The slices of x along `axis` that `indices` name; the first `batch_dims` dimensions of both go together.

    Negative indices count from the end, but not in the versions that know `validate_indices`: there they are undefined.
    """
    if validate_indices is not None and np.any(indices < 0):
        raise ValueError(f"the index {indices.min()} was given, expected 0 or more")
    axis %= x.ndim
    if not batch_dims:
        return np.take(x, indices, axis)
    shape = x.shape[:axis] + indices.shape[batch_dims:] + x.shape[axis + 1 :]
    batches = x.shape[:batch_dims]
    parts = [np.take(x[batch], indices[batch], axis - batch_dims) for batch in np.ndindex(*batches)]
    return np.reshape(parts, shape)


def _gather_along_axis(x: Array, indices: Array, axis: int = 0, validate_indices: bool | None = None) -> Array:
    """For each place in `indices`, the element of x at that place but for `axis`, where it is the index."""
    if validate_indices is not None and np.any(indices < 0):
        raise ValueError(f"the index {indices.min()} was given, expected 0 or more")
    return np.take_along_axis(x, indices.astype(np.int64), axis)


def _select(cond: Array, a: Array, b: Array) -> Array:
    """a where cond is true, elsewhere b."""
    return np.where(cond, a, b)


def _slice_by_index(
    x: Array,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Ints | None = None,
    end_mask: Ints | None = None,
    squeeze_mask: Ints | None = None,
) -> Array:
    """x[begin:end:stride] in each dimension, without the bounds that are masked; squeezed ones keep x[begin] alone."""
    none = (0,) * x.ndim
    steps = stride or (1,) * x.ndim
    no_begin, no_end, single = begin_mask or none, end_mask or none, squeeze_mask or none
    parts = [
        begin[i] if single[i] else slice(None if no_begin[i] else begin[i], None if no_end[i] else end[i], steps[i])
        for i in range(x.ndim)
    ]
    return x[tuple(parts)]


def _slice_by_size(x: Array, begin: Ints, size: Ints) -> Array:
    """`size` elements from `begin` on in each dimension, all that follow for -1."""
    starts = tuple(first % n if first < 0 else first for first, n in zip(begin, x.shape, strict=True))
    stops = [n if many == -1 else first + many for first, many, n in zip(starts, size, x.shape, strict=True)]
    if any(stop > n for stop, n in zip(stops, x.shape, strict=True)):
        raise ValueError(f"{list(size)} elements from {list(begin)} on were asked for, of {list(x.shape)}")
    return x[tuple(map(slice, starts, stops))]


def _split(x: Array, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> tuple[Array, ...]:
    """x in parts along `axis`, of the sizes given or, without them, all of one size."""
    total = x.shape[axis]
    if split_sizes is None:
        if not num_splits or total % num_splits:
            raise ValueError(f"{total} cannot be split into {num_splits} equal parts")
        split_sizes = (total // num_splits,) * num_splits
    if sum(split_sizes) != total:
        raise ValueError(f"the sizes {list(split_sizes)} do not add up to {total}")
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], axis))


OPS: dict[str, Op] = {
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "select": _select,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "split": _split,
}
