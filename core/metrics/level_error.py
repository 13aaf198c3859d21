"""The largest errors, in grey levels of the images' own bit depth (0..255 or 0..65535)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..arrays import Image
from .planes import check_pair

__all__ = ["max_level_error", "p999_error"]


def _distances(a: Image, b: Image) -> NDArray[np.int32]:
    check_pair(a, b)
    return np.abs(a.astype(np.int32) - b.astype(np.int32))


def max_level_error(a: Image, b: Image) -> int:
    """The largest absolute difference of any pixel and channel."""
    return int(_distances(a, b).max())


def p999_error(a: Image, b: Image) -> float:
    """The absolute difference that 99.9 % of all samples do not exceed; always one that occurs."""
    return float(np.quantile(_distances(a, b), 0.999, method="higher"))
