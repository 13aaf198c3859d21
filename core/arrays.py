"""The three forms a picture takes, and the only conversions between them.

    Image   (H, W, 3) uint8 or uint16, RGB, sRGB            what files hold
    Batch   (N, C, H, W) float32 in [0, 1]                  what graphs take and give
    State   (N, C, H, W) or (N, D) float32, any range       what a sampler moves

No function accepts two of them. Scaling to [-1, 1], where a network wants it, happens inside its graph.
An Image of n bits has the levels 0 .. m with m = 2^n - 1; Image -> Batch -> Image gives every level back.
"""

from __future__ import annotations

import ctypes
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .native import ALL_CORES, library

__all__ = ["Batch", "Image", "State", "to_batch", "to_image"]

Image: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
Batch: TypeAlias = NDArray[np.float32]
State: TypeAlias = NDArray[np.float32]

_NATIVE_SUFFIX: dict[np.dtype[Any], str] = {np.dtype(np.uint8): "u8", np.dtype(np.uint16): "u16"}
_NUMPY_ROWS = 64  # rows that are in float64 at one time


def to_batch(image: Image) -> Batch:
    """Image (H, W, 3) -> Batch (1, 3, H, W) = level / m, rounded once to float32.

    Raises UsageError for another shape or dtype.
    """
    _check_levels(image.dtype)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"an image of shape {image.shape} was given; expected (height, width, 3) RGB")
    lib = library()
    return _to_batch_numpy(image) if lib is None else _to_batch_native(lib, image)


def to_image(batch: Batch, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    """Batch (1, 3, H, W), any range -> Image (H, W, 3) of `dtype` = floor(clip(x, 0, 1) * m + 0.5), NaN as 0.

    The product is exact in float64, so that "round half up" holds without exception.
    Raises UsageError for another shape or dtype.
    """
    _check_levels(np.dtype(dtype))
    if batch.dtype != np.float32 or batch.ndim != 4 or batch.shape[:2] != (1, 3):
        raise UsageError(f"a batch {batch.dtype} {batch.shape} was given; expected float32 (1, 3, height, width)")
    lib = library()
    return _to_image_numpy(batch, dtype) if lib is None else _to_image_native(lib, batch, dtype)


def _check_levels(dtype: np.dtype[Any]) -> None:
    if dtype not in _NATIVE_SUFFIX:
        raise UsageError(f"an image of dtype {dtype} was given; expected uint8 or uint16")


def _empty_image(height: int, width: int, dtype: np.dtype[Any]) -> Image:
    shape = (height, width, 3)
    return np.empty(shape, np.uint8) if dtype == np.uint8 else np.empty(shape, np.uint16)


def _to_batch_numpy(image: Image) -> Batch:
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis])
    return planes.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def _to_batch_native(lib: ctypes.CDLL, image: Image) -> Batch:
    height, width, _ = image.shape
    batch = np.empty((1, 3, height, width), np.float32)
    convert = getattr(lib, f"pp_to_batch_{_NATIVE_SUFFIX[image.dtype]}")
    convert(np.ascontiguousarray(image), height, width, batch, ALL_CORES)
    return batch


def _to_image_numpy(batch: Batch, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    planes = batch[0].transpose(1, 2, 0)  # (H, W, 3)
    height, width = batch.shape[2:]
    image = _empty_image(height, width, np.dtype(dtype))
    for start in range(0, len(planes), _NUMPY_ROWS):
        rows = planes[start : start + _NUMPY_ROWS]
        clipped = np.where(rows > 0, np.minimum(rows, 1), 0).astype(np.float64)  # NaN > 0 is false
        image[start : start + _NUMPY_ROWS] = np.floor(clipped * np.iinfo(image.dtype).max + 0.5)
    return image


def _to_image_native(lib: ctypes.CDLL, batch: Batch, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    height, width = batch.shape[2:]
    image = _empty_image(height, width, np.dtype(dtype))
    convert = getattr(lib, f"pp_to_image_{_NATIVE_SUFFIX[image.dtype]}")
    convert(np.ascontiguousarray(batch), height, width, image, ALL_CORES)
    return image
