"""Image quality in numbers, with NumPy only.

All metrics take `Image`s, compute in float64 on a fixed range (see `planes`), and never return NaN. Higher is better
for `psnr`, `ssim` and `haarpsi`, lower for the others. `niqe` judges one image, the rest an image and its truth.
"""

from __future__ import annotations

from .lpips import LpipsWeights, lpips, read_lpips_weights
from .niqe import NiqeModel, niqe
from .similarity import haarpsi, psnr, ssim
from .swd import swd

__all__ = ["LpipsWeights", "NiqeModel", "haarpsi", "lpips", "niqe", "psnr", "read_lpips_weights", "ssim", "swd"]
