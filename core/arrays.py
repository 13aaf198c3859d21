"""The types of arrays, and the only conversions between images in files and in graphs.

    type        dtype          layout                   range        holds
    Image       uint8, uint16  (H, W, 3) RGB            0 .. 2^n-1   what files hold, sRGB
    FloatImage  float32        (H, W, 3)                1 is white   an image that is damaged or measured; noise for one
    Plane       float32        (H, W)                   any          a number per pixel: a mask, a depth, a kernel
    Batch       float32        (N, C, H, W)             [0, 1]       what graphs take and return
    State       float32        (N, C, H, W) or (N, D)   any          what a sampler moves
    Floats      float32        any                      any          any of these, or a vector
    Field       float64        any                      0 .. 255     what metrics compute with, in grey levels
    Array       any            any                      any          a named array in a file

No function accepts two of them. Scaling to [-1, 1], where a network wants it, happens inside its graph.
An Image of n bits has the grey levels 0 .. m with m = 2^n - 1; Image -> Batch -> Image preserves every one of them.
"""

from __future__ import annotations

import ctypes
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .native import ALL_CORES, library

__all__ = ["Array", "Batch", "Field", "FloatImage", "Floats", "Image", "Plane", "State", "to_batch", "to_image"]

Image: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
Batch: TypeAlias = NDArray[np.float32]
State: TypeAlias = NDArray[np.float32]
FloatImage: TypeAlias = NDArray[np.float32]
Plane: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float32]
Field: TypeAlias = NDArray[np.float64]
Array: TypeAlias = NDArray[Any]

_NATIVE_SUFFIX: dict[np.dtype[Any], str] = {np.dtype(np.uint8): "u8", np.dtype(np.uint16): "u16"}
_NUMPY_ROWS = 64  # rows that are in float64 at one time


def to_batch(image: Image) -> Batch:
    """Image (H, W, 3) -> Batch (1, 3, H, W) = grey level / m, rounded once to float32.

    Raises UsageError for another shape or dtype.
    """
    _check_dtype(image.dtype)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"expected an image of shape (height, width, 3), got {image.shape}")
    lib = library()
    return _to_batch_numpy(image) if lib is None else _to_batch_native(lib, image)


def to_image(batch: Batch, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    """Batch (1, 3, H, W), any range -> Image (H, W, 3) of `dtype` = floor(clip(x, 0, 1) * m + 0.5), NaN as 0.

    The product is exact in float64, so that "round half up" holds without exception.
    Raises UsageError for another shape or dtype.
    """
    _check_dtype(np.dtype(dtype))
    if batch.dtype != np.float32 or batch.ndim != 4 or batch.shape[:2] != (1, 3):
        raise UsageError(f"expected a batch float32 (1, 3, height, width), got {batch.dtype} {batch.shape}")
    lib = library()
    return _to_image_numpy(batch, dtype) if lib is None else _to_image_native(lib, batch, dtype)


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype not in _NATIVE_SUFFIX:
        raise UsageError(f"expected an image of dtype uint8 or uint16, got {dtype}")


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
    image: Array = np.empty((height, width, 3), dtype)
    for start in range(0, len(planes), _NUMPY_ROWS):
        rows = planes[start : start + _NUMPY_ROWS]
        clipped = np.where(rows > 0, np.minimum(rows, 1), 0).astype(np.float64)  # NaN > 0 is false
        image[start : start + _NUMPY_ROWS] = np.floor(clipped * np.iinfo(image.dtype).max + 0.5)
    return image


def _to_image_native(lib: ctypes.CDLL, batch: Batch, dtype: type[np.uint8] | type[np.uint16]) -> Image:
    height, width = batch.shape[2:]
    image: Array = np.empty((height, width, 3), dtype)
    convert = getattr(lib, f"pp_to_image_{_NATIVE_SUFFIX[image.dtype]}")
    convert(np.ascontiguousarray(batch), height, width, image, ALL_CORES)
    return image
