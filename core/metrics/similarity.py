"""Similarity to the true photo: PSNR, SSIM and HaarPSI.

SSIM: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (IEEE TIP 2004), the mean
over the three colour channels, so that errors of colour without an error of luma count. HaarPSI: Reisenhofer et
al., "A Haar Wavelet-Based Perceptual Similarity Index for Image Quality Assessment" (Signal Processing: Image
Communication 2018, arXiv:1607.06140).
"""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Field, Image
from .planes import PEAK, check_pair, gaussian_taps, planes, smooth, valid

__all__ = ["haarpsi", "psnr", "ssim"]

# SSIM
_WINDOW = gaussian_taps(radius=5, sigma=1.5)
_C1 = (0.01 * PEAK) ** 2
_C2 = (0.03 * PEAK) ** 2

# HaarPSI
_C = 30.0  # Eq. 12, for grey levels 0..255
_ALPHA = 4.2  # Eq. 12
_SCALES = 3
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def psnr(a: Image, b: Image) -> float:
    """10 log10(peak^2 / mean squared error) in dB over all pixels and channels; inf for equal images."""
    check_pair(a, b)
    error = float(np.mean(np.square(planes(a) - planes(b))))
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(a: Image, b: Image) -> float:
    """SSIM (Eq. 13), at most 1 = equal: 11 x 11 Gaussian window of sigma 1.5, inside the image, no subsampling.

    Sides of at least 11 pixels. The setting of scikit-image with gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, channel_axis=2.
    """
    check_pair(a, b, "SSIM", len(_WINDOW))
    return float(np.mean([_mean_similarity(x, y) for x, y in zip(planes(a), planes(b), strict=True)]))


def haarpsi(a: Image, b: Image) -> float:
    """HaarPSI (Eqs. 10 and 14, colour), 0..1 = equal; sides of at least 16 pixels."""
    check_pair(a, b, "HaarPSI", 2 ** (_SCALES + 1))
    (luma_a, *chroma_a), (luma_b, *chroma_b) = _seen(a), _seen(b)
    rows, weight_rows = _luma_similarity(luma_a, luma_b, axis=0)
    columns, weight_columns = _luma_similarity(luma_a, luma_b, axis=1)
    i, q = (_ratio(_mean_chroma(u), _mean_chroma(v)) for u, v in zip(chroma_a, chroma_b, strict=True))
    similarities = np.stack([(i + q) / 2, rows, columns])  # Eq. 13
    weights = np.stack([(weight_rows + weight_columns) / 2, weight_rows, weight_columns])  # Eq. 14: as luma's structure
    total = weights.sum()
    if total == 0:  # both images are black
        return 1.0
    # Eq. 10: the weighted mean under a logistic function, then back through it, squared.
    mean = float((weights / (1 + np.exp(-_ALPHA * similarities))).sum() / total)
    return (math.log(mean / (1 - mean)) / _ALPHA) ** 2


def _mean_similarity(x: Field, y: Field) -> float:
    """Mean of the SSIM map over one channel, x and y: (H, W)."""
    mean_x, mean_y = smooth(x, _WINDOW), smooth(y, _WINDOW)
    mean_xy = mean_x * mean_y
    mean_squares = mean_x**2 + mean_y**2
    covariance = smooth(x * y, _WINDOW) - mean_xy
    variances = smooth(x * x + y * y, _WINDOW) - mean_squares
    structure = (2 * covariance + _C2) / (variances + _C2)
    return float((structure * (2 * mean_xy + _C1) / (mean_squares + _C1)).mean())


def _seen(image: Image) -> Field:
    """YIQ planes, (3, H/2, W/2), averaged over 2 x 2 pixels for the usual distance of the viewer (section 2.4)."""
    yiq = np.tensordot(_YIQ, planes(image), axes=1)
    height, width = yiq.shape[1:]
    padded = np.pad(yiq, ((0, 0), (0, height % 2), (0, width % 2)))
    top, foot = padded[:, ::2], padded[:, 1::2]
    return (top[:, :, ::2] + foot[:, :, ::2] + top[:, :, 1::2] + foot[:, :, 1::2]) / 4


def _luma_similarity(x: Field, y: Field, axis: int) -> tuple[Field, Field]:
    """Local similarity (Eq. 8) from the two finest scales and its weight (Eq. 9) from the coarsest."""
    details = [(_detail(x, 2**scale, axis), _detail(y, 2**scale, axis)) for scale in range(1, _SCALES + 1)]
    similarity = sum((_ratio(u, v) for u, v in details[:-1]), np.zeros_like(x)) / (_SCALES - 1)
    return similarity, np.maximum(*details[-1])


def _detail(plane: Field, size: int, axis: int) -> Field:
    """Magnitude of the Haar response across `axis`: difference of the two halves of size x size blocks."""
    padded = np.pad(plane, (size // 2 - 1, size // 2))
    ones = np.ones(size)
    step = np.repeat([1.0, -1.0], size // 2)
    return np.abs(valid(valid(padded, step, axis), ones, 1 - axis)) / size


def _mean_chroma(plane: Field) -> Field:
    """Magnitude of the 2 x 2 means of I or Q."""
    half = np.full(2, 0.5)
    return np.abs(smooth(np.pad(plane, (0, 1)), half))


def _ratio(u: Field, v: Field) -> Field:
    """Eq. 2: (2uv + C) / (u^2 + v^2 + C)."""
    return (2 * u * v + _C) / (u**2 + v**2 + _C)
