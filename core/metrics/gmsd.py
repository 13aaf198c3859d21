"""GMSD: Xue et al., "Gradient Magnitude Similarity Deviation" (IEEE TIP 2014, arXiv:1308.3052)."""

from __future__ import annotations

import numpy as np

from ..arrays import Field, Image
from .planes import check_pair, check_size, luma, mean_2x2, valid

__all__ = ["gmsd"]

C = 170.0  # Eq. 4, for grey levels 0..255


def gmsd(a: Image, b: Image) -> float:
    """Standard deviation of the gradient similarity of luma (Eqs. 4 to 6), 0 = equal; sides of at least 4 pixels."""
    check_pair(a, b)
    check_size("GMSD", a, 4)
    u, v = _gradient(luma(a)), _gradient(luma(b))
    return float(np.std((2 * u * v + C) / (u**2 + v**2 + C)))


def _gradient(plane: Field) -> Field:
    """Prewitt gradient magnitude (Eqs. 1 to 3) of the 2 x 2 averaged plane; black beyond the border."""
    height, width = plane.shape
    half = np.pad(mean_2x2(np.pad(plane, ((0, height % 2), (0, width % 2)))), 1)
    third, step = np.full(3, 1 / 3), np.array([-1.0, 0.0, 1.0])
    across = valid(valid(half, third, 0), step, 1)
    along = valid(valid(half, step, 0), third, 1)
    return np.sqrt(across**2 + along**2)
