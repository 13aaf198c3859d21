"""Structural similarity on one scale and on five.

Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (IEEE TIP 2004), and Wang,
Simoncelli and Bovik, "Multiscale Structural Similarity for Image Quality Assessment" (Asilomar 2003). Both are means
over the three colour channels: a colour error that leaves luma alone counts.
"""

from __future__ import annotations

import numpy as np

from ..arrays import Image
from .filters import gaussian_taps, mean_2x2, smooth
from .pair import PEAK, Field, check_pair, check_size, planes

__all__ = ["ms_ssim", "ssim"]

WINDOW = gaussian_taps(radius=5, sigma=1.5)
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim(a: Image, b: Image) -> float:
    """SSIM (Eq. 13), at most 1 = equal: 11 x 11 Gaussian window of sigma 1.5, inside the picture, no subsampling.

    Sides of at least 11 pixels. The setting of scikit-image with gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, channel_axis=2.
    """
    check_pair(a, b)
    check_size("SSIM", a, len(WINDOW))
    return float(np.mean([_means(x, y)[0] for x, y in zip(planes(a), planes(b), strict=True)]))


def ms_ssim(a: Image, b: Image) -> float:
    """MS-SSIM (Eq. 7) over five scales with the weights of the paper, 0..1 = equal; sides of at least 161 pixels."""
    check_pair(a, b)
    check_size("MS-SSIM", a, (len(WINDOW) - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1)
    return float(np.mean([_product(x, y) for x, y in zip(planes(a), planes(b), strict=True)]))


def _product(x: Field, y: Field) -> float:
    """Eq. 7 for one channel; negative correlation counts as none."""
    result = 1.0
    last = len(SCALE_WEIGHTS) - 1
    for scale, weight in enumerate(SCALE_WEIGHTS):
        similarity, structure = _means(x, y)
        result *= max(0.0, similarity if scale == last else structure) ** weight
        x, y = _half(x), _half(y)
    return result


def _means(x: Field, y: Field) -> tuple[float, float]:
    """Means of the SSIM map and of its contrast-structure factor over one channel, x and y: (H, W)."""
    mean_x, mean_y = smooth(x, WINDOW), smooth(y, WINDOW)
    mean_xy = mean_x * mean_y
    mean_squares = mean_x**2 + mean_y**2
    covariance = smooth(x * y, WINDOW) - mean_xy
    variances = smooth(x * x + y * y, WINDOW) - mean_squares
    structure = (2 * covariance + C2) / (variances + C2)
    similarity = structure * (2 * mean_xy + C1) / (mean_squares + C1)
    return float(similarity.mean()), float(structure.mean())


def _half(field: Field) -> Field:
    """2 x 2 means; an odd last row or column is repeated, as the authors' own program does."""
    height, width = field.shape
    return mean_2x2(np.pad(field, ((0, height % 2), (0, width % 2)), mode="edge"))
