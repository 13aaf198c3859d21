"""Resizing is PyTorch's where PyTorch has that grid, elsewhere the grid of the documentation, sample by sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.runtimes.mil.ops import MIL_OPS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 5, 4), np.float32)


def at(line: np.ndarray, place: float) -> np.ndarray:
    """A line of numbers between its elements, as the documentation has it: clamped to its ends."""
    place = min(len(line) - 1, max(0, place))
    low = math.floor(place)
    return line[low] + (line[min(low + 1, len(line) - 1)] - line[low]) * (place - low)


def sampled(x: Any, sizes: tuple[int, int], place: Any) -> torch.Tensor:
    """place(i, size in, size out): where the sample i lies."""
    result = np.moveaxis(np.asarray(x, np.float64), (-2, -1), (0, 1))
    result = np.stack([at(result, place(i, len(result), sizes[0])) for i in range(sizes[0])])
    result = result.swapaxes(0, 1)
    result = np.stack([at(result, place(i, len(result), sizes[1])) for i in range(sizes[1])])
    return torch.from_numpy(np.moveaxis(result, (0, 1), (-1, -2)))


def torchs(size: tuple[int, int], corners: bool) -> Any:
    return lambda x: F.interpolate(x, size=size, mode="bilinear", align_corners=corners)


def upsampled(expected: Any, height: float = 2, width: float = 3, **parameters: bool) -> tuple[Any, ...]:
    return (
        lambda mb, x: mb.upsample_bilinear(x=x, scale_factor_height=height, scale_factor_width=width, **parameters),
        expected,
        X,
    )


CASES = {
    "upsample_bilinear": upsampled(torchs((10, 12), corners=True)),
    "upsample_bilinear: not aligned": upsampled(torchs((10, 12), corners=False), align_corners=False),
    "upsample_bilinear: a fraction": upsampled(torchs((7, 5), corners=False), 1.5, 1.25, align_corners=False),
    "upsample_bilinear: not aligned, not centered": upsampled(
        lambda x: sampled(x, (10, 12), lambda i, size, wanted: i * size / wanted),
        align_corners=False,
        half_pixel_centers=False,
    ),
    "upsample_nearest_neighbor": (
        lambda mb, x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
        lambda x: F.interpolate(x, scale_factor=(2, 3), mode="nearest"),
        X,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


@pytest.mark.parametrize(
    ("op", "parameters", "message"),
    [
        ("upsample_bilinear", {"half_pixel_centers": True}, "align_corners and half_pixel_centers exclude each other"),
        ("upsample_nearest_neighbor", {"scale_factor_width": 1.5}, "1.5 are not both whole numbers"),
    ],
)
def test_what_has_no_definition(op: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MIL_OPS[op](X, **parameters)
