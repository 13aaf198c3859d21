"""Images of another size."""

from __future__ import annotations

import math

import numpy as np

from ..elements import Array
from ..signatures import Ints, Op

__all__ = ["OPS"]


def _grid(size: int, wanted: int, mode: str) -> Array:
    """Where each of `wanted` samples lies between `size` elements, as the documentation of resize_bilinear has it."""
    i = np.arange(wanted, dtype=np.float64)
    if mode == "STRICT_ALIGN_CORNERS" or (mode == "ALIGN_CORNERS" and wanted > 1):
        grid = i * (size - 1) / max(1, wanted - 1)
    elif mode == "ALIGN_CORNERS":
        grid = np.array([(size - 1) / 2])
    elif mode == "DEFAULT":
        grid = i * size / wanted
    elif mode == "OFFSET_CORNERS":
        grid = (i + 0.5) * max(1, size - 1) / wanted
    elif mode == "UNALIGN_CORNERS":
        grid = (i + 0.5) * size / wanted - 0.5
    else:
        raise ValueError(f"the sampling_mode '{mode}' is unknown")
    return np.clip(grid, 0, size - 1)


def _interpolated(x: Array, axis: int, grid: Array) -> Array:
    """x between its elements along `axis`."""
    low = np.floor(grid).astype(np.int64)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = -1
    share = (grid - low).astype(np.float32).reshape(shape)
    below, above = np.take(x, low, axis), np.take(x, high, axis)
    return below + (above - below) * share


def _bilinear(x: Array, sizes: Ints, mode: str) -> Array:
    """The last dimensions of x, as many as there are sizes, in those sizes."""
    for axis, size in enumerate(sizes, x.ndim - len(sizes)):
        x = _interpolated(x, axis, _grid(x.shape[axis], size, mode))
    return x


def _nearest(x: Array, sizes: Ints) -> Array:
    """The element at or before each sample of an even grid."""
    for axis, size in enumerate(sizes, x.ndim - len(sizes)):
        x = np.take(x, np.arange(size) * x.shape[axis] // size, axis)
    return x


def _resize(
    x: Array, shape: Ints, resized_dims: int, interpolation_mode: str = "LINEAR", sampling_mode: str = "DEFAULT"
) -> Array:
    """The last `resized_dims` dimensions in the last sizes of `shape`, where 0 leaves a size as it is."""
    wanted = shape[len(shape) - resized_dims :]
    there = x.shape[x.ndim - resized_dims :]
    sizes = tuple(size or old for size, old in zip(wanted, there, strict=True))
    if interpolation_mode == "LINEAR":
        return _bilinear(x, sizes, sampling_mode)
    if interpolation_mode != "NEAREST_NEIGHBOR" or sampling_mode != "DEFAULT":
        raise ValueError(f"the modes {interpolation_mode}, {sampling_mode} have no definition that could be followed")
    return _nearest(x, sizes)


def _resize_bilinear(
    x: Array, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Array:
    """The last two dimensions in the target size."""
    return _bilinear(x, (target_size_height, target_size_width), sampling_mode)


def _resize_nearest_neighbor(x: Array, target_size_height: int, target_size_width: int) -> Array:
    """The last two dimensions in the target size."""
    return _nearest(x, (target_size_height, target_size_width))


def _upsample_bilinear(
    x: Array,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Array:
    """The last two dimensions times the factors, rounded down."""
    if align_corners and half_pixel_centers:
        raise ValueError("align_corners and half_pixel_centers exclude each other")
    unaligned = "DEFAULT" if half_pixel_centers is False else "UNALIGN_CORNERS"
    mode = "STRICT_ALIGN_CORNERS" if align_corners else unaligned
    sizes = (math.floor(x.shape[-2] * scale_factor_height), math.floor(x.shape[-1] * scale_factor_width))
    return _bilinear(x, sizes, mode)


def _upsample_nearest_neighbor(x: Array, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Array:
    """Each element of the last two dimensions repeated; what fractions of a repetition mean is not documented."""
    if scale_factor_height % 1 or scale_factor_width % 1:
        raise ValueError(f"the factors {scale_factor_height}, {scale_factor_width} are not both whole numbers")
    return x.repeat(int(scale_factor_height), -2).repeat(int(scale_factor_width), -1)


OPS: dict[str, Op] = {
    "resize": _resize,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest_neighbor,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest_neighbor,
}
