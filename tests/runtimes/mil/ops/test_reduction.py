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
    "reduce_argmax": over("reduce_argmax", lambda x: x.argmax(-1).int()),
    "reduce_argmax: dimension kept": over(
        "reduce_argmax", lambda x: x.argmax(1, keepdim=True).int(), axis=1, keep_dims=True
    ),
    "reduce_argmin": over("reduce_argmin", lambda x: x.argmin(0).int(), axis=0),
    "reduce_argmin: small indices": (
        lambda mb, x: mb.cast(x=mb.reduce_argmin(x=x, axis=1, output_dtype="uint16"), dtype="int32"),
        lambda x: x.argmin(1).int(),
        X,
    ),
    "reduce_l1_norm": over("reduce_l1_norm", lambda x: x.abs().sum(-1), **LAST),
    "reduce_l1_norm: several": over("reduce_l1_norm", lambda x: x.abs().sum((0, 2), keepdim=True), **SOME),
    "reduce_l2_norm": over("reduce_l2_norm", lambda x: x.norm(dim=-1), **LAST),
    "reduce_l2_norm: several": over("reduce_l2_norm", lambda x: x.norm(dim=(0, 2), keepdim=True), **SOME),
    "reduce_log_sum": over("reduce_log_sum", lambda x: x.sum(-1).log(), ABOVE, **LAST),
    "reduce_log_sum_exp": over("reduce_log_sum_exp", lambda x: x.logsumexp(-1), **LAST),
    "reduce_log_sum_exp: several": over("reduce_log_sum_exp", lambda x: x.logsumexp((0, 2)), axes=[0, 2]),
    "reduce_log_sum_exp: great numbers": over("reduce_log_sum_exp", lambda x: x.logsumexp(-1), X * 500, **LAST),
    "reduce_max": over("reduce_max", lambda x: x.amax(-1), **LAST),
    "reduce_max: several": over("reduce_max", lambda x: x.amax((0, 2), keepdim=True), **SOME),
    "reduce_mean": over("reduce_mean", lambda x: x.mean(-1), **LAST),
    "reduce_mean: several": over("reduce_mean", lambda x: x.mean((0, 2), keepdim=True), **SOME),
    "reduce_mean: all": over("reduce_mean", lambda x: x.mean().reshape(1, 1, 1), keep_dims=True),
    "reduce_min": over("reduce_min", lambda x: x.amin(1), axes=[1]),
    "reduce_prod": over("reduce_prod", lambda x: x.prod(-1), **LAST),
    "reduce_sum": over("reduce_sum", lambda x: x.sum(-1), **LAST),
    "reduce_sum: integers": over("reduce_sum", lambda x: x.sum(0, dtype=torch.int32), COUNTS, axes=[0]),
    "reduce_sum_square": over("reduce_sum_square", lambda x: x.square().sum((0, 2), keepdim=True), **SOME),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)
