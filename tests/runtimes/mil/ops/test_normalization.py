"""Normalization is PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.runtimes.mil.ops import MIL_OPS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4, 5), np.float32) * 3 + 1
SMALL = X[:1] / 1000  # where epsilon is seen
MEAN, GAMMA, BETA = RNG.standard_normal((3, 3), np.float32)
VARIANCE = np.array([0.5, 1.5, 2.5], np.float32)
PLANE_GAMMA, PLANE_BETA = RNG.standard_normal((2, 4, 5), np.float32)


def norm(op: str, expected: Any, x: np.ndarray = X, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: getattr(mb, op)(x=x, **parameters), expected, x


def tensors(*arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(map(torch.from_numpy, arrays))


def instance(x: torch.Tensor, epsilon: float = 1e-5, gamma: Any = None, beta: Any = None) -> torch.Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


def over_channels(x: torch.Tensor, epsilon: float) -> torch.Tensor:
    return F.layer_norm(x.movedim(1, -1), [3], *tensors(GAMMA, BETA), epsilon).movedim(-1, 1)


CASES = {
    "batch_norm": norm("batch_norm", lambda x: F.batch_norm(x, *tensors(MEAN, VARIANCE)), mean=MEAN, variance=VARIANCE),
    "batch_norm: gamma, beta, epsilon": norm(
        "batch_norm",
        lambda x: F.batch_norm(x, *tensors(MEAN, VARIANCE, GAMMA, BETA), eps=0.1),
        mean=MEAN,
        variance=VARIANCE,
        gamma=GAMMA,
        beta=BETA,
        epsilon=0.1,
    ),
    "batch_norm: lines": norm(
        "batch_norm", lambda x: F.batch_norm(x, *tensors(MEAN, VARIANCE)), X[..., 0], mean=MEAN, variance=VARIANCE
    ),
    "layer_norm": norm("layer_norm", lambda x: F.layer_norm(x, x.shape), axes=[0, 1, 2, 3]),
    "layer_norm: last dimension": norm("layer_norm", lambda x: F.layer_norm(x, [5]), axes=[-1]),
    "layer_norm: gamma, beta": norm(
        "layer_norm",
        lambda x: F.layer_norm(x, [4, 5], *tensors(PLANE_GAMMA, PLANE_BETA)),
        axes=[2, 3],
        gamma=PLANE_GAMMA,
        beta=PLANE_BETA,
    ),
    "layer_norm: over channels": norm(
        "layer_norm", lambda x: over_channels(x, 1e-3), axes=[1], gamma=GAMMA, beta=BETA, epsilon=1e-3
    ),
    "layer_norm: small numbers": norm(
        "layer_norm", lambda x: F.layer_norm(x, [5], eps=1e-6), SMALL, axes=[3], epsilon=1e-6
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


def test_layers_without_axes_are_all_of_an_array() -> None:
    """The builder of coremltools cannot leave the axes out; other packages may."""
    np.testing.assert_allclose(MIL_OPS["layer_norm"](X), F.layer_norm(torch.from_numpy(X), X.shape), atol=2e-6)
