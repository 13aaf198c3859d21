"""Filters that several damages share. Edges are replicated; size and dtype are kept."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .light import Picture, Plane, blend
from .windows import Window

__all__ = ["convolve", "convolve_inside", "gaussian_blur", "mirrored", "sample", "softened"]

Array: TypeAlias = NDArray[np.float32]  # (H, W) or (H, W, C)


def gaussian_blur(picture: Array, sigma: float) -> Array:
    """Blur with a Gaussian of standard deviation `sigma` pixels."""
    radius = int(np.ceil(3 * sigma))
    if radius == 0:
        return picture
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        picture = _correlate(picture, kernel, axis)
    return picture


def softened(window: Window, sigma: float) -> Picture:
    """A window of a photo that was blurred with a Gaussian of `sigma` pixels."""
    wide = window.widened(int(np.ceil(3 * sigma)))
    return wide.cut(gaussian_blur(wide.pixels(), sigma), window)


def _correlate(picture: Array, kernel: Array, axis: int) -> Array:
    radius = len(kernel) // 2
    padded = _replicated(picture, radius if axis == 0 else 0, radius if axis == 1 else 0)
    size = picture.shape[axis]
    out, product = np.zeros_like(picture), np.empty_like(picture)
    for i, weight in enumerate(kernel):
        np.multiply(padded[i : i + size] if axis == 0 else padded[:, i : i + size], weight, out=product)
        out += product
    return out


def _replicated(picture: Array, rows: int, columns: int) -> Array:
    """The picture with its edges repeated `rows` times above and below, `columns` times left and right."""
    return np.pad(picture, [(rows, rows), (columns, columns)] + [(0, 0)] * (picture.ndim - 2), mode="edge")


def convolve(picture: Array, kernel: Plane) -> Array:
    """Filter with any odd-sized kernel, through the Fourier transform."""
    return convolve_inside(_replicated(picture, *(size // 2 for size in kernel.shape)), kernel)


def convolve_inside(picture: Array, kernel: Plane) -> Array:
    """Filter where the whole kernel fits: smaller than the picture by the kernel's size less one."""
    height, width = (_fast_size(size) for size in picture.shape[:2])
    response = np.fft.rfft2(kernel, (height, width))
    spectrum = np.fft.rfft2(picture, (height, width), axes=(0, 1))
    spectrum *= response.reshape(response.shape + (1,) * (picture.ndim - 2))
    whole = np.fft.irfft2(spectrum, (height, width), axes=(0, 1))
    top, left = (size - 1 for size in kernel.shape)
    return whole[top : picture.shape[0], left : picture.shape[1]].astype(np.float32)


def _fast_size(size: int) -> int:
    """The next size whose only prime factors are 2, 3 and 5: others make the transform slow."""
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1


def sample(picture: Picture, y: Array, x: Array) -> Array:
    """The picture at fractional positions y, x (any equal shape S), bilinear, mirrored at the edges: (*S, 3)."""
    y, x = (mirrored(at, size) for at, size in zip((y, x), picture.shape, strict=False))
    top, left = y.astype(np.intp), x.astype(np.intp)
    bottom = np.minimum(top + 1, picture.shape[0] - 1)
    right = np.minimum(left + 1, picture.shape[1] - 1)
    down, across = (y - top)[..., np.newaxis], (x - left)[..., np.newaxis]
    upper = blend(picture[top, left], picture[top, right], across)
    lower = blend(picture[bottom, left], picture[bottom, right], across)
    return blend(upper, lower, down)


def mirrored(at: Array, size: int) -> Array:
    """Positions folded back into [0, size - 1]."""
    last = np.float32(max(size - 1, 1))
    folded = last - np.abs(np.mod(at, 2 * last) - last)
    return np.clip(folded, 0, size - 1).astype(np.float32)
