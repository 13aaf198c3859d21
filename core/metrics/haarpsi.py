"""HaarPSI: Reisenhofer et al., "A Haar Wavelet-Based Perceptual Similarity Index for Image Quality Assessment"
(Signal Processing: Image Communication 2018, arXiv:1607.06140)."""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Image
from .filters import mean_2x2, valid
from .pair import Field, check_pair, check_size, planes

__all__ = ["haarpsi"]

C = 30.0  # Eq. 12, for grey levels 0..255
ALPHA = 4.2  # Eq. 12
SCALES = 3
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def haarpsi(a: Image, b: Image) -> float:
    """HaarPSI (Eqs. 10 and 14, colour), 0..1 = equal; sides of at least 16 pixels."""
    check_pair(a, b)
    check_size("HaarPSI", a, 2 ** (SCALES + 1))
    yiq_a, yiq_b = _seen(a), _seen(b)
    similarities, weights = [_chroma_similarity(yiq_a, yiq_b)], [np.zeros(0)]
    for axis in (0, 1):
        similarity, weight = _luma_similarity(yiq_a[0], yiq_b[0], axis)
        similarities.append(similarity)
        weights.append(weight)
    weights[0] = (weights[1] + weights[2]) / 2  # Eq. 14: chroma is weighted where luma has structure
    return _pooled(np.stack(similarities), np.stack(weights))


def _seen(image: Image) -> Field:
    """YIQ planes, (3, H/2, W/2), averaged over 2 x 2 pixels for the usual distance of the viewer (section 2.4)."""
    yiq = np.tensordot(YIQ, planes(image), axes=1)
    height, width = yiq.shape[1:]
    padded = np.pad(yiq, ((0, 0), (0, height % 2), (0, width % 2)))
    return np.stack([mean_2x2(plane) for plane in padded])


def _luma_similarity(x: Field, y: Field, axis: int) -> tuple[Field, Field]:
    """Local similarity (Eq. 8) from the two finest scales and its weight (Eq. 9) from the coarsest."""
    details = [(_detail(x, 2**scale, axis), _detail(y, 2**scale, axis)) for scale in range(1, SCALES + 1)]
    similarity = sum((_ratio(u, v) for u, v in details[:-1]), np.zeros_like(x)) / (SCALES - 1)
    return similarity, np.maximum(*details[-1])


def _detail(plane: Field, size: int, axis: int) -> Field:
    """Magnitude of the Haar response across `axis`: difference of the two halves of size x size blocks."""
    padded = np.pad(plane, (size // 2 - 1, size // 2))
    ones = np.ones(size)
    step = np.repeat([1.0, -1.0], size // 2)
    return np.abs(valid(valid(padded, step, axis), ones, 1 - axis)) / size


def _chroma_similarity(x: Field, y: Field) -> Field:
    """Eq. 13: similarity of the 2 x 2 means of I and Q."""
    return (_ratio(_chroma(x[1]), _chroma(y[1])) + _ratio(_chroma(x[2]), _chroma(y[2]))) / 2


def _chroma(plane: Field) -> Field:
    half = np.full(2, 0.5)
    padded = np.pad(plane, (0, 1))
    return np.abs(valid(valid(padded, half, 0), half, 1))


def _ratio(u: Field, v: Field) -> Field:
    """Eq. 2: (2uv + C) / (u^2 + v^2 + C)."""
    return (2 * u * v + C) / (u**2 + v**2 + C)


def _pooled(similarities: Field, weights: Field) -> float:
    """Eq. 10: the weighted mean under a logistic function, then back through it, squared."""
    total = weights.sum()
    if total == 0:  # both pictures are black
        return 1.0
    mean = float((weights / (1 + np.exp(-ALPHA * similarities))).sum() / total)
    return (math.log(mean / (1 - mean)) / ALPHA) ** 2
