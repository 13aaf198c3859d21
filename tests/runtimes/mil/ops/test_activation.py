"""Activations are those of PyTorch; the error function is exact to what float32 can tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.runtimes.mil.ops import OPS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4, 5), np.float32) * 2
FAR = np.array([-200, -90, -20, -1e-6, 0, 1e-6, 20, 90, 200], np.float32)
SLOPES = np.array([0.1, 0.2, -0.3], np.float32)


def plain(op: str, expected: Any, x: np.ndarray = X, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: getattr(mb, op)(x=x, **parameters), expected, x


CASES = {
    "clamped_relu": plain(
        "clamped_relu", lambda x: torch.where(x >= 0, x.clamp(max=1.5), (0.1 * x).clamp(max=1.5)), alpha=0.1, beta=1.5
    ),
    "elu": plain("elu", lambda x: F.elu(x, 0.7), alpha=0.7),
    "elu: far from 0": plain("elu", lambda x: F.elu(x, 0.7), FAR, alpha=0.7),
    "erf": plain("erf", torch.erf),
    "gelu": plain("gelu", F.gelu),
    "gelu: exact": plain("gelu", F.gelu, mode="EXACT"),
    "gelu: far from 0": plain("gelu", F.gelu, FAR),
    "gelu: tanh": plain("gelu", lambda x: F.gelu(x, approximate="tanh"), mode="TANH_APPROXIMATION"),
    "gelu: sigmoid": plain("gelu", lambda x: x * torch.sigmoid(1.702 * x), mode="SIGMOID_APPROXIMATION"),
    "leaky_relu": plain("leaky_relu", lambda x: F.leaky_relu(x, 0.2), alpha=0.2),
    "linear_activation": plain("linear_activation", lambda x: 1.5 * x - 0.25, alpha=1.5, beta=-0.25),
    "prelu": plain("prelu", lambda x: F.prelu(x, torch.from_numpy(SLOPES)), alpha=SLOPES),
    "relu": plain("relu", F.relu),
    "relu6": plain("relu6", F.relu6, X * 4),
    "sigmoid": plain("sigmoid", torch.sigmoid),
    "sigmoid: far from 0": plain("sigmoid", torch.sigmoid, FAR),
    "sigmoid_hard": plain("sigmoid_hard", lambda x: (0.3 * x + 0.4).clamp(0, 1), alpha=0.3, beta=0.4),
    "silu": plain("silu", F.silu),
    "silu: far from 0": plain("silu", F.silu, FAR),
    "softmax": plain("softmax", lambda x: x.softmax(-1)),
    "softmax: channels": plain("softmax", lambda x: x.softmax(1), axis=1),
    "softmax: great numbers": plain("softmax", lambda x: x.softmax(-2), X * 1000, axis=-2),
    "softplus": plain("softplus", F.softplus),
    "softplus: far from 0": plain("softplus", F.softplus, FAR),
    "softsign": plain("softsign", F.softsign),
    "tanh": plain("tanh", torch.tanh),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


def test_the_error_function_everywhere() -> None:
    near = np.concatenate([np.logspace(-30, 0, 500), np.linspace(1, 7, 2000), [np.inf]]).astype(np.float32)
    x = np.concatenate([-near, [-0.0, 0.0], near]).astype(np.float32)
    exact = np.array([math.erf(value) for value in x])
    found = OPS["erf"](x)
    np.testing.assert_allclose(found, exact, rtol=5e-7)
    assert np.array_equal(np.signbit(found), np.signbit(x))


@pytest.mark.parametrize("op", ["erf", "gelu", "sigmoid", "silu", "softplus"])
def test_large_arrays_are_computed_in_parts(op: str) -> None:
    """The parts are seen only in the speed: not at their borders, and not in an array that is a view."""
    x = RNG.standard_normal((3, 70, 500), np.float32)
    expected = np.stack([OPS[op](row) for row in x.reshape(-1, 500)]).reshape(x.shape)
    np.testing.assert_array_equal(OPS[op](x), expected)
    np.testing.assert_array_equal(OPS[op](x.transpose(2, 0, 1)), expected.transpose(2, 0, 1))


def test_a_mode_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="the mode 'QUICK' is unknown; known are: EXACT"):
        OPS["gelu"](X, mode="QUICK")
