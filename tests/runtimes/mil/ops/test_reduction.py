"""Reductions are PyTorch's, over some or all dimensions, which are kept or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4), np.float32)
ABOVE = np.abs(X) + np.float32(0.1)
COUNTS = np.arange(-5, 7, dtype=np.int32).reshape(3, 4)


def over(op: str, expected: Any, x: np.ndarray = X, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: getattr(mb, op)(x=x, **parameters), expected, x


LAST = {"axes": [-1]}
SOME = {"axes": [0, -1], "keep_dims": True}

CASES = {
    "reduce_l2_norm": over("reduce_l2_norm", lambda x: x.norm(dim=-1), **LAST),
    "reduce_l2_norm: several": over("reduce_l2_norm", lambda x: x.norm(dim=(0, 2), keepdim=True), **SOME),
    "reduce_max": over("reduce_max", lambda x: x.amax(-1), **LAST),
    "reduce_max: several": over("reduce_max", lambda x: x.amax((0, 2), keepdim=True), **SOME),
    "reduce_mean": over("reduce_mean", lambda x: x.mean(-1), **LAST),
    "reduce_mean: several": over("reduce_mean", lambda x: x.mean((0, 2), keepdim=True), **SOME),
    "reduce_mean: all": over("reduce_mean", lambda x: x.mean().reshape(1, 1, 1), keep_dims=True),
    "reduce_sum": over("reduce_sum", lambda x: x.sum(-1), **LAST),
    "reduce_sum: integers": over("reduce_sum", lambda x: x.sum(0, dtype=torch.int32), COUNTS, axes=[0]),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)
