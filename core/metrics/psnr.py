"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Image
from .pair import PEAK, check_pair, planes

__all__ = ["psnr"]


def psnr(a: Image, b: Image) -> float:
    """10 log10(peak^2 / mean squared error) in dB over all pixels and channels; inf for equal pictures."""
    check_pair(a, b)
    error = float(np.mean(np.square(planes(a) - planes(b))))
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)
