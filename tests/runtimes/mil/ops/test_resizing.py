"""Resizing is PyTorch's where PyTorch has that grid, elsewhere the grid of the documentation, sample by sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.runtimes.mil.ops import OPS

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


def default(i: int, size: int, wanted: int) -> float:
    return i * (size - size / wanted) / (wanted - 1)


def offset(i: int, size: int, wanted: int) -> float:
    delta = max(1, size - 1) / wanted
    return 0.5 * delta + i * ((wanted - 1) * delta) / (wanted - 1)


def middle(_i: int, size: int, _wanted: int) -> float:
    return (size - 1) / 2


def bilinear(mode: str, expected: Any, height: int = 7, width: int = 9) -> tuple[Any, ...]:
    return (
        lambda mb, x: mb.resize_bilinear(x=x, target_size_height=height, target_size_width=width, sampling_mode=mode),
        expected,
        X,
    )


def torchs(size: tuple[int, int], corners: bool) -> Any:
    return lambda x: F.interpolate(x, size=size, mode="bilinear", align_corners=corners)


def upsampled(expected: Any, height: float = 2, width: float = 3, **parameters: bool) -> tuple[Any, ...]:
    return (
        lambda mb, x: mb.upsample_bilinear(x=x, scale_factor_height=height, scale_factor_width=width, **parameters),
        expected,
        X,
    )


CASES = {
    "resize": (
        lambda mb, x: mb.resize(x=x, shape=[7, 9], resized_dims=np.uint32(2), sampling_mode="UNALIGN_CORNERS"),
        torchs((7, 9), corners=False),
        X,
    ),
    "resize: sizes that stay": (
        lambda mb, x: mb.resize(x=x, shape=[6, 0, 9], resized_dims=np.uint32(2), sampling_mode="STRICT_ALIGN_CORNERS"),
        torchs((5, 9), corners=True),
        X,
    ),
    "resize: default": (
        lambda mb, x: mb.resize(x=x, shape=[7, 9], resized_dims=np.uint32(2)),
        lambda x: sampled(x, (7, 9), default),
        X,
    ),
    "resize: nearest": (
        lambda mb, x: mb.resize(x=x, shape=[7, 9], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"),
        lambda x: F.interpolate(x, size=(7, 9), mode="nearest"),
        X,
    ),
    "resize_bilinear: default": bilinear("DEFAULT", lambda x: sampled(x, (7, 9), default)),
    "resize_bilinear: smaller": bilinear("DEFAULT", lambda x: sampled(x, (3, 2), default), 3, 2),
    "resize_bilinear: offset": bilinear("OFFSET_CORNERS", lambda x: sampled(x, (7, 9), offset)),
    "resize_bilinear: unaligned": bilinear("UNALIGN_CORNERS", torchs((7, 9), corners=False)),
    "resize_bilinear: aligned": bilinear("ALIGN_CORNERS", torchs((7, 9), corners=True)),
    "resize_bilinear: aligned, one sample": bilinear("ALIGN_CORNERS", lambda x: sampled(x, (1, 1), middle), 1, 1),
    "resize_bilinear: strictly aligned, one sample": bilinear("STRICT_ALIGN_CORNERS", lambda x: x[..., :1, :1], 1, 1),
    "resize_nearest_neighbor": (
        lambda mb, x: mb.resize_nearest_neighbor(x=x, target_size_height=7, target_size_width=3),
        lambda x: F.interpolate(x, size=(7, 3), mode="nearest"),
        X,
    ),
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
        ("resize_bilinear", {"sampling_mode": "CENTER"}, "the sampling_mode 'CENTER' is unknown"),
        (
            "resize",
            {
                "shape": (2, 2),
                "resized_dims": 2,
                "interpolation_mode": "NEAREST_NEIGHBOR",
                "sampling_mode": "ALIGN_CORNERS",
            },
            "the modes NEAREST_NEIGHBOR, ALIGN_CORNERS have no definition",
        ),
    ],
)
def test_what_has_no_definition(op: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OPS[op](X, **parameters)
