"""Image quality in numbers, one metric per file, NumPy only.

All compute in float64 on a fixed range and take `Image`s (see `pair`); none returns NaN. Higher is better for `psnr`,
`ssim`, `ms_ssim` and `haarpsi`, lower for the others. `niqe` looks at one image, the rest at an image and its truth.
"""

from __future__ import annotations

from .gmsd import gmsd
from .level_error import max_level_error, p999_error
from .lpips import LpipsWeights, lpips, read_lpips_weights
from .niqe import NiqeModel, niqe
from .similarity import haarpsi, ms_ssim, psnr, ssim
from .swd import swd

__all__ = [
    "LpipsWeights",
    "NiqeModel",
    "gmsd",
    "haarpsi",
    "lpips",
    "max_level_error",
    "ms_ssim",
    "niqe",
    "p999_error",
    "psnr",
    "read_lpips_weights",
    "ssim",
    "swd",
]
