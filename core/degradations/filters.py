"""What several damages share: encodings, filters, changes of size, and the split into structure and texture.

Encodings are those of image files: sRGB and linear light, 8-bit grey levels, JPEG. Filters replicate the edges and keep
size and dtype. Sizes change by antialiased bicubic as in MATLAB's imresize, and by simpler ways. Structure keeps the
hard edges and flattens everything of low contrast; texture is the rest. The smoother minimises the
weighted-least-squares energy of Farbman et al. (SIGGRAPH 2008) by the separable solver of Min et al., "Fast Global
Image Smoothing Based on Weighted Least Squares" (IEEE TIP 2014, Eqs. 6-9, 14): alternating exact solutions along rows
and columns with a shrinking weight.
"""

from __future__ import annotations

import io
import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from ..arrays import FloatImage, Floats, Plane

__all__ = [
    "LUMA",
    "Kernel",
    "Subsampling",
    "blend",
    "convolve",
    "convolve_inside",
    "enlarge",
    "gaussian_blur",
    "jpeg",
    "linear_to_srgb",
    "mirrored",
    "quantize",
    "resize",
    "sample",
    "shifted_jpeg",
    "shrink",
    "srgb_to_linear",
    "structure",
    "tinted",
]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of sRGB values: BT.601, as JPEG has it

Subsampling: TypeAlias = Literal["4:4:4", "4:2:2", "4:2:0"]

Kernel: TypeAlias = Literal["area", "bilinear", "bicubic"]

_WHOLE = (slice(None), slice(None))
_SUPPORT = {"area": 0.5, "bilinear": 1.0, "bicubic": 2.0}  # radius of each kernel, in pixels

_LAMBDA = 100.0  # weight of smoothness against fidelity
_SIGMA = 10 / 255  # contrast, in [0, 1] units, above which an edge resists smoothing
_ITERATIONS = 3


def quantize(image: FloatImage) -> FloatImage:
    """Round to the 256 grey levels of an 8-bit file, as saving a photo does. Clips to [0, 1]."""
    greys: FloatImage = np.floor(np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5))
    return greys / np.float32(255)


def blend(under: Floats, over: Floats, share: Floats | np.float32) -> Floats:
    """`under` where `share` is 0, `over` where it is 1, their mixture in between; shapes broadcast."""
    return (under + share * (over - under)).astype(np.float32, copy=False)


def tinted(image: FloatImage, colour: Floats, amount: float) -> FloatImage:
    """Mix with its own grey version in a tone, such as sepia: `colour` (3,) is what white becomes; amount 0 to 1."""
    return blend(image, (image @ LUMA)[..., np.newaxis] * colour, np.float32(amount))


def srgb_to_linear(values: Floats) -> Floats:
    """Linear light of sRGB values, both in [0, 1] and of any shape (IEC 61966-2-1); clips."""
    values = np.clip(values, 0, 1)
    curved = ((values + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(values <= 0.04045, values / np.float32(12.92), curved)


def linear_to_srgb(linear: Floats) -> Floats:
    """The sRGB values of linear light, both in [0, 1] and of any shape: the inverse of `srgb_to_linear`; clips."""
    linear = np.clip(linear, 0, 1)
    curved = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.clip(np.where(linear <= 0.0031308, linear * np.float32(12.92), curved), 0, 1)


def jpeg(image: FloatImage, quality: int, subsampling: Subsampling = "4:2:0") -> FloatImage:
    """Compress and decompress as JPEG; `quality` as libjpeg counts it, 1..100."""
    buffer = io.BytesIO()
    greys = (quantize(image) * 255).astype(np.uint8)
    Pillow.fromarray(greys).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    with Pillow.open(buffer) as decoded:
        return np.asarray(decoded, dtype=np.float32) / np.float32(255)


def shifted_jpeg(image: FloatImage, shift: NDArray[np.int64], quality: int, subsampling: Subsampling) -> FloatImage:
    """JPEG whose 8x8 blocks start `shift` rows and columns above and left of the image, as after a crop."""
    down, right = shift
    larger = np.pad(image, ((down, 0), (right, 0), (0, 0)), mode="edge")
    return jpeg(larger, quality, subsampling)[down:, right:]


def gaussian_blur(image: Floats, sigma: float) -> Floats:
    """Blur with a Gaussian of standard deviation `sigma` pixels."""
    radius = int(np.ceil(3 * sigma))
    if radius == 0:
        return image
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        padded = _replicated(image, radius * (1 - axis), radius * axis)
        size = image.shape[axis]
        image, product = np.zeros_like(image), np.empty_like(image)
        for i, weight in enumerate(kernel):
            np.multiply(padded[i : i + size] if axis == 0 else padded[:, i : i + size], weight, out=product)
            image += product
    return image


def convolve(image: Floats, kernel: Plane) -> Floats:
    """Filter with any odd-sized kernel, through the Fourier transform."""
    return convolve_inside(_replicated(image, *(size // 2 for size in kernel.shape)), kernel)


def convolve_inside(image: Floats, kernel: Plane) -> Floats:
    """Filter where the whole kernel fits: smaller than the image by the kernel's size less one."""
    height, width = (_fast_size(size) for size in image.shape[:2])
    response = np.fft.rfft2(kernel, (height, width))
    spectrum = np.fft.rfft2(image, (height, width), axes=(0, 1))
    spectrum *= response.reshape(response.shape + (1,) * (image.ndim - 2))
    whole = np.fft.irfft2(spectrum, (height, width), axes=(0, 1))
    top, left = (size - 1 for size in kernel.shape)
    return whole[top : image.shape[0], left : image.shape[1]].astype(np.float32)


def sample(image: FloatImage, y: Floats, x: Floats) -> Floats:
    """The image at fractional positions y, x (any equal shape S), bilinear, mirrored at the edges: (*S, 3)."""
    y, x = (mirrored(at, size) for at, size in zip((y, x), image.shape, strict=False))
    top, left = y.astype(np.intp), x.astype(np.intp)
    bottom = np.minimum(top + 1, image.shape[0] - 1)
    right = np.minimum(left + 1, image.shape[1] - 1)
    down, across = (y - top)[..., np.newaxis], (x - left)[..., np.newaxis]
    upper = blend(image[top, left], image[top, right], across)
    lower = blend(image[bottom, left], image[bottom, right], across)
    return blend(upper, lower, down)


def mirrored(at: Floats, size: int) -> Floats:
    """Positions folded back into [0, size - 1]."""
    last = np.float32(max(size - 1, 1))
    folded = last - np.abs(np.mod(at, 2 * last) - last)
    return np.clip(folded, 0, size - 1).astype(np.float32)


def shrink(image: FloatImage, factor: int) -> FloatImage:
    """(H, W, 3) -> (ceil(H / factor), ceil(W / factor), 3): antialiased bicubic. May overshoot [0, 1] slightly."""
    for axis in (0, 1):
        image = _resampled(image, axis, -(-image.shape[axis] // factor), 1 / factor, "bicubic", True)
    return image


def enlarge(image: FloatImage, factor: int) -> FloatImage:
    """(H, W, 3) -> (factor * H, factor * W, 3): bicubic. May overshoot [0, 1] slightly."""
    for axis in (0, 1):
        image = _resampled(image, axis, factor * image.shape[axis], float(factor), "bicubic", True)
    return image


def resize(
    image: FloatImage, height: int, width: int, kernel: Kernel, *, antialias: bool, part: tuple[slice, slice] = _WHOLE
) -> FloatImage:
    """To any size. Without `antialias` a shrinking kernel is not widened: it samples points, as fast software does.

    part: rows and columns of the result to compute, with the same bits as in the whole.
    """
    for axis, size in enumerate((height, width)):
        image = _resampled(image, axis, size, size / image.shape[axis], kernel, antialias, part[axis])
    return image


def structure(image: FloatImage) -> FloatImage:
    """The texture-free layer of `image`, (H, W, 3) float32 in [0, 1]; same shape and range.

    Real photos keep a PSNR of 27 to 31 dB to their structure.
    """
    result = image.astype(np.float32)
    across, along = _edge_stopping(image, 1), _edge_stopping(image, 0)
    for i in range(_ITERATIONS):
        # Eq. 14: the weights fall by four each time, so that they add up to _LAMBDA and no streaks remain.
        share = 1.5 * 4 ** (_ITERATIONS - 1 - i) / (4**_ITERATIONS - 1) * _LAMBDA
        result = _solve_rows(result.transpose(1, 0, 2), across.T, share).transpose(1, 0, 2)
        result = _solve_rows(result, along, share)
    return np.clip(result, 0, 1).astype(np.float32, copy=False)


def _replicated(image: Floats, rows: int, columns: int) -> Floats:
    """The image with its edges repeated `rows` times above and below, `columns` times left and right."""
    return np.pad(image, [(rows, rows), (columns, columns)] + [(0, 0)] * (image.ndim - 2), mode="edge")


def _fast_size(size: int) -> int:
    """The next size whose only prime factors are 2, 3 and 5: others make the transform slow."""
    return next(n for n in range(size, 2 * size + 1) if 30 ** n.bit_length() % n == 0)


def _resampled(
    image: FloatImage, axis: int, size: int, scale: float, kernel: Kernel, antialias: bool, part: slice = _WHOLE[0]
) -> FloatImage:
    """Resize along one axis, one pass per tap of the kernel."""
    taps = _taps(image.shape[axis], size, scale, kernel, antialias)
    positions, weights = (each[:, part] for each in taps)  # (taps, size of the part) each
    out = np.zeros((*image.shape[:axis], positions.shape[1], *image.shape[axis + 1 :]), np.float32)
    for position, weight in zip(positions, weights, strict=True):
        out += np.take(image, position, axis) * weight.reshape((-1, 1, 1) if axis == 0 else (-1, 1))
    return out


def _taps(length: int, size: int, scale: float, kernel: Kernel, antialias: bool) -> tuple[NDArray[np.intp], Floats]:
    """For each of `size` new samples the old ones (mirrored at the edges) that it is made of, and their weights."""
    stretch = max(1.0, 1 / scale) if antialias else 1.0
    centre = (np.arange(size) + 0.5) / scale - 0.5
    radius = _SUPPORT[kernel] * stretch
    count = math.ceil(2 * radius) + 1
    at = np.floor(centre - radius).astype(np.intp) + np.arange(count)[:, np.newaxis]
    weights = _profile((at - centre) / stretch, kernel)
    used = weights.any(axis=1)
    at, weights = at[used], weights[used] / weights.sum(axis=0)
    folded = np.mod(at, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded), weights.astype(np.float32)


def _profile(x: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float64]:
    """The kernel at distances x; bicubic is Keys' with a = -1/2 (IEEE ASSP 29, 1981)."""
    distance = np.abs(x)
    if kernel == "area":
        return ((x > -0.5) & (x <= 0.5)).astype(np.float64)
    if kernel == "bilinear":
        return np.maximum(1 - distance, 0)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance <= 1, near, np.where(distance <= 2, far, 0))


def _edge_stopping(image: FloatImage, axis: int) -> Plane:
    """Eq. 2: exp(-|difference of neighbours| / _SIGMA) along `axis`, one less than the size there."""
    distance = np.sqrt(np.square(np.diff(image, axis=axis)).sum(axis=2))
    return np.exp(-distance / np.float32(_SIGMA)).astype(np.float32)


def _solve_rows(signal: FloatImage, coupling: Plane, weight: float) -> FloatImage:
    """Solve (1 + weight A) u = signal along axis 0, exactly, by the tridiagonal (Thomas) algorithm.

    signal: (L, M, 3), M independent lines of length L; coupling: (L - 1, M), the weights between neighbours.
    """
    length = len(signal)
    lower = np.zeros((length + 1, signal.shape[1], 1), np.float32)
    lower[1:length, :, 0] = -weight * coupling
    diagonal = 1 - lower[:-1] - lower[1:]
    upper = np.empty_like(diagonal)
    result = np.empty_like(signal)
    upper[0] = lower[1] / diagonal[0]
    result[0] = signal[0] / diagonal[0]
    for i in range(1, length):
        pivot = 1 / (diagonal[i] - lower[i] * upper[i - 1])
        upper[i] = lower[i + 1] * pivot
        result[i] = (signal[i] - lower[i] * result[i - 1]) * pivot
    for i in range(length - 2, -1, -1):
        result[i] -= upper[i] * result[i + 1]
    return result
