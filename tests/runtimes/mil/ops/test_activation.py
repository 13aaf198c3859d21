"""Activations are those of PyTorch; the error function is exact to what float32 can tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.runtimes.mil.ops import MIL_OPS
from pocketprior.runtimes.mil.ops.elementwise import erf

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4, 5), np.float32) * 2
FAR = np.array([-200, -90, -20, -1e-6, 0, 1e-6, 20, 90, 200], np.float32)


def plain(op: str, expected: Any, x: np.ndarray = X, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: getattr(mb, op)(x=x, **parameters), expected, x


CASES = {
    "gelu": plain("gelu", F.gelu),
    "gelu: exact": plain("gelu", F.gelu, mode="EXACT"),
    "gelu: far from 0": plain("gelu", F.gelu, FAR),
    "gelu: tanh": plain("gelu", lambda x: F.gelu(x, approximate="tanh"), mode="TANH_APPROXIMATION"),
    "leaky_relu": plain("leaky_relu", lambda x: F.leaky_relu(x, 0.2), alpha=0.2),
    "relu": plain("relu", F.relu),
    "relu6": plain("relu6", F.relu6, X * 4),
    "sigmoid": plain("sigmoid", torch.sigmoid),
    "sigmoid: far from 0": plain("sigmoid", torch.sigmoid, FAR),
    "silu": plain("silu", F.silu),
    "silu: far from 0": plain("silu", F.silu, FAR),
    "softmax": plain("softmax", lambda x: x.softmax(-1)),
    "softmax: channels": plain("softmax", lambda x: x.softmax(1), axis=1),
    "softmax: great numbers": plain("softmax", lambda x: x.softmax(-2), X * 1000, axis=-2),
    "softplus": plain("softplus", F.softplus),
    "softplus: far from 0": plain("softplus", F.softplus, FAR),
    "tanh": plain("tanh", torch.tanh),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


def test_the_error_function_everywhere() -> None:
    near = np.concatenate([np.logspace(-30, 0, 500), np.linspace(1, 7, 2000), [np.inf]]).astype(np.float32)
    x = np.concatenate([-near, [-0.0, 0.0], near]).astype(np.float32)
    exact = np.array([math.erf(value) for value in x])
    found = erf(x)
    np.testing.assert_allclose(found, exact, rtol=5e-7)
    assert np.array_equal(np.signbit(found), np.signbit(x))


@pytest.mark.parametrize("op", ["gelu", "sigmoid", "silu", "softplus"])
def test_large_arrays_are_computed_in_parts(op: str) -> None:
    """The parts are seen only in the speed: not at their borders, and not in an array that is a view."""
    x = RNG.standard_normal((3, 70, 500), np.float32)
    expected = np.stack([MIL_OPS[op](row) for row in x.reshape(-1, 500)]).reshape(x.shape)
    np.testing.assert_array_equal(MIL_OPS[op](x), expected)
    np.testing.assert_array_equal(MIL_OPS[op](x.transpose(2, 0, 1)), expected.transpose(2, 0, 1))


def test_a_mode_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="unknown mode 'QUICK'; known are: EXACT"):
        MIL_OPS["gelu"](X, mode="QUICK")
