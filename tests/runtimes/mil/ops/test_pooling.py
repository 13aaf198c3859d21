"""Pooling is PyTorch's, with padding that only some of the definitions count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.runtimes.mil.ops import MIL_OPS

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 3, 9, 8), np.float32)
LINE = RNG.standard_normal((2, 3, 11), np.float32)
VOLUME = RNG.standard_normal((1, 2, 5, 4, 6), np.float32)


def pool(op: str, x: np.ndarray, expected: Any, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: getattr(mb, op)(x=x, **parameters), expected, x


def same(x: torch.Tensor, what: Any) -> torch.Tensor:
    """`what` of each window of 3 x 4, 2 apart, with as many windows as strides begin; outside x there is nothing."""
    n, c, h, w = x.shape
    result = np.zeros((n, c, -(-h // 2), -(-w // 2)), np.float32)
    first = [t // 2 for t in ((result.shape[2] - 1) * 2 + 3 - h, (result.shape[3] - 1) * 2 + 4 - w)]
    for place in np.ndindex(result.shape):
        top, left = place[2] * 2 - first[0], place[3] * 2 - first[1]
        window = x[place[0], place[1], max(top, 0) : top + 3, max(left, 0) : left + 4]
        result[place] = what(window)
    return torch.from_numpy(result)


WIDE = {"kernel_sizes": [3, 4], "strides": [2, 2]}
PADDED = {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1]}
UNEVEN = {"kernel_sizes": [3, 2], "strides": [2, 3], "pad_type": "custom", "pad": [1, 2, 0, 1]}

CASES = {
    "avg_pool": pool("avg_pool", IMAGE, lambda x: F.avg_pool2d(x, (2, 3), 1), kernel_sizes=[2, 3], pad_type="valid"),
    "avg_pool: strides": pool(
        "avg_pool", IMAGE, lambda x: F.avg_pool2d(x, 2), kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"
    ),
    "avg_pool: padding": pool("avg_pool", IMAGE, lambda x: F.avg_pool2d(x, 3, 2, 1), **PADDED),
    "avg_pool: padding that does not count": pool(
        "avg_pool",
        IMAGE,
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        exclude_padding_from_average=True,
        **PADDED,
    ),
    "avg_pool: uneven padding": pool(
        "avg_pool", IMAGE, lambda x: F.avg_pool2d(F.pad(x, (0, 1, 1, 2)), (3, 2), (2, 3)), **UNEVEN
    ),
    "avg_pool: ceil_mode": pool(
        "avg_pool", IMAGE, lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), ceil_mode=True, **PADDED
    ),
    "avg_pool: ceil_mode, padding that does not count": pool(
        "avg_pool",
        IMAGE,
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        ceil_mode=True,
        exclude_padding_from_average=True,
        **PADDED,
    ),
    "avg_pool: a last window that begins in the padding": pool(
        "avg_pool",
        LINE,
        lambda x: F.avg_pool1d(x, 2, 4, 1, ceil_mode=True),
        kernel_sizes=[2],
        strides=[4],
        pad_type="custom",
        pad=[1, 1],
        ceil_mode=True,
    ),
    "avg_pool: same": pool(
        "avg_pool",
        IMAGE,
        lambda x: same(x, torch.mean),
        pad_type="same",
        exclude_padding_from_average=True,
        **WIDE,
    ),
    "avg_pool: volumes": pool(
        "avg_pool", VOLUME, lambda x: F.avg_pool3d(x, 2, 1), kernel_sizes=[2, 2, 2], pad_type="valid"
    ),
    "max_pool": pool("max_pool", IMAGE, lambda x: F.max_pool2d(x, (2, 3), 1), kernel_sizes=[2, 3], pad_type="valid"),
    "max_pool: padding below all numbers": pool("max_pool", IMAGE - 5, lambda x: F.max_pool2d(x, 3, 2, 1), **PADDED),
    "max_pool: uneven padding": pool(
        "max_pool",
        IMAGE,
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 1, 2), value=-math.inf), (3, 2), (2, 3)),
        **UNEVEN,
    ),
    "max_pool: ceil_mode": pool(
        "max_pool", IMAGE, lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), ceil_mode=True, **PADDED
    ),
    "max_pool: same": pool("max_pool", IMAGE, lambda x: same(x, torch.max), pad_type="same", **WIDE),
    "max_pool: lines": pool(
        "max_pool", LINE, lambda x: F.max_pool1d(x, 3, 2), kernel_sizes=[3], strides=[2], pad_type="valid"
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


def test_windows_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="a window of 12 does not fit into 11"):
        MIL_OPS["max_pool"](LINE, (12,), "valid")
