"""The levels that a layer can have, as arithmetic on its weights; the same numbers go into every runtime.

fp32    as trained
fp16    weights rounded to float16, computed with in float
w8      weights in 8 bits, symmetric per output channel, computed with in float
w4      weights in 4 bits, symmetric in groups of whole kernels of some input channels, up to 72, computed with in float
int8    weights as in w8 and inputs and outputs in 8 bits, asymmetric per array: integer arithmetic
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .layers import Layer

__all__ = ["LEVELS", "Coded", "bias_shift", "coded", "decoded", "layer_bytes", "offered"]

LEVELS = ("fp32", "fp16", "w8", "w4", "int8")
BITS = {"fp32": 32, "fp16": 16, "w8": 8, "w4": 4, "int8": 8}
GROUP = 72  # largest number of 4-bit weights with one scale: 3x3 of 8 input channels
CLIPS = np.linspace(0.7, 1.0, 13)  # shares of the largest weight that 4 bits may reach to; the best is taken


class Coded(NamedTuple):
    """codes: (rows, n) int8, weights are codes * scales; scales: (rows, 1) float32; a row is a channel or a group."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]


def offered(layer: Layer) -> tuple[str, ...]:
    """The levels that a layer can have: integer arithmetic is for convolutions of pictures, 4 bits come in pairs."""
    without = set() if layer.spatial else {"int8"}
    without |= {"w4"} if layer.count % 2 else set()
    return tuple(level for level in LEVELS if level not in without)


def layer_bytes(layer: Layer, level: str) -> int:
    """Size of the weights and scales in one file; biases stay in float and count for no level."""
    rows = {"w8": layer.shape[layer.axis] * 4, "int8": layer.shape[layer.axis] * 4, "w4": _groups(layer) * 2}
    return layer.count * BITS[level] // 8 + rows.get(level, 0)


def coded(weights: NDArray[np.float32], level: str, axis: int = 0) -> Coded:
    """Weights of a layer in 8 (w8, int8) or 4 bits (w4); axis: of the output channels, 0 or 1 (of a matrix)."""
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    if level == "w4":
        return _four_bits(rows.reshape(-1, _group(rows.shape[1], math.prod(weights.shape[2:]))))
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scales = (np.maximum(largest, np.finfo(np.float32).tiny * 127) / 127).astype(np.float32)
    return Coded(np.clip(np.round(rows / scales), -127, 127).astype(np.int8), scales)


def decoded(code: Coded, shape: tuple[int, ...], axis: int = 0) -> NDArray[np.float32]:
    """The weights that a runtime computes with."""
    channels_first = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    rows = (code.codes.astype(np.float32) * code.scales).reshape(channels_first)
    return np.ascontiguousarray(np.moveaxis(rows, 0, axis))


def bias_shift(change: NDArray[np.float32], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a change of the weights (O, I / groups, ...) adds to the mean of each output channel: (O).

    means: of the input channels, (I). Borders, which are padded, are taken for the rest of the picture.
    """
    per_group = change.shape[1]
    kernels = change.reshape(len(means) // per_group, -1, per_group, math.prod(change.shape[2:])).sum(axis=3)
    return np.einsum("goi,gi->go", kernels, means.reshape(-1, per_group)).reshape(-1)


def _four_bits(rows: NDArray[np.float32]) -> Coded:
    """-7 to 7 times a float16 scale: that of a few which leaves the least squared error in the group."""
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-6)
    best = np.full((len(rows), 1), np.inf)
    codes, scales = np.zeros(rows.shape, np.int8), np.ones((len(rows), 1), np.float32)
    for clip in CLIPS:
        scale = (largest * clip / 7).astype(np.float16).astype(np.float32)
        scale = np.maximum(scale, np.float32(2.0**-24))  # the least float16
        code = np.clip(np.round(rows / scale), -7, 7)
        error = np.square(code * scale - rows).sum(axis=1, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        codes, scales = np.where(better, code, codes).astype(np.int8), np.where(better, scale, scales)
    return Coded(codes, scales.astype(np.float32))


def _group(row: int, kernel: int) -> int:
    """The largest divisor of a row that is no larger than GROUP and holds whole kernels; one kernel at least."""
    return max((size for size in range(kernel, GROUP + 1, kernel) if row % size == 0), default=kernel)


def _groups(layer: Layer) -> int:
    return layer.count // _group(layer.count // layer.shape[layer.axis], math.prod(layer.shape[2:]))
