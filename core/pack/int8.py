"""Arrays as unsigned 8-bit integers: scale, zero point and clip range. Exporters and training share it."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["HISTOGRAM_BINS", "MIN_WEIGHTS", "QuantParams", "clip_range", "quant_params"]

MIN_WEIGHTS = 256  # a layer with fewer weights stays in float: quantizing it would save nothing
HISTOGRAM_BINS = 2048  # 8 for each of the 256 integers
CLIP_SHARES = np.linspace(0.5, 1.0, 11)  # candidates for the clip range, as shares of the least and the largest value


class QuantParams(NamedTuple):
    """An integer q in 0..255 stands for (q - zero_point) * scale."""

    scale: float
    zero_point: int


def quant_params(low: float, high: float) -> QuantParams:
    """Parameters of the clip range [low, high], which contains zero; the scale is a float32 above 0."""
    scale = float(np.float32(max((high - low) / 255, 1e-12)))
    return QuantParams(scale, int(np.clip(round(-low / scale), 0, 255)))


def clip_range(least: float, largest: float, counts: NDArray[np.int64]) -> tuple[float, float]:
    """The clip range with the least squared quantization error; of equal ones the widest.

    Both ends are tried at CLIP_SHARES of the extremes, `least` (0 or below) and `largest` (0 or above); `counts` is the
    histogram of the values in HISTOGRAM_BINS equal bins between the two. A percentile would cut off the white of a
    photo; this weighs what is cut off.
    """
    if least == largest:
        return least, largest
    centres = least + (np.arange(HISTOGRAM_BINS) + 0.5) * (largest - least) / HISTOGRAM_BINS

    def error(ends: tuple[float, float]) -> float:
        scale, zero_point = quant_params(*ends)
        q = np.clip(np.round(centres / scale) + zero_point, 0, 255)
        return float(counts @ np.square((q - zero_point) * scale - centres))

    shares = product(CLIP_SHARES.tolist() if least else [1.0], CLIP_SHARES.tolist())
    return min(reversed([(least * low, largest * high) for low, high in shares]), key=error)
