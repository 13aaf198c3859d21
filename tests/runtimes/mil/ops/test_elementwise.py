"""Elementwise ops are those of PyTorch, broadcast as there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pocketprior.runtimes.mil.ops import MIL_OPS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4), np.float32) * 2
Y = RNG.standard_normal((3, 1), np.float32) * 2
ABOVE = np.abs(X) + np.float32(0.1)
HALVES = np.array([-2.5, -1.5, -0.5, -0.2, 0.5, 0.7, 1.5, 2.5], np.float32)
COUNTS = np.array([[-7, -1, 0], [1, 5, 300]], np.int32)
DIVISORS = np.array([2, -3, 4], np.int32)
CLOSE_CALLS = np.array([[1, 2, 3], [3, 2, 1]], np.float32)
THRESHOLDS = np.array([1, 2, 2], np.float32)


def unary(op: str, expected: Any, x: np.ndarray = X) -> tuple[Any, ...]:
    return lambda mb, x: getattr(mb, op)(x=x), expected, x


def binary(op: str, expected: Any, x: np.ndarray = X, y: np.ndarray = Y) -> tuple[Any, ...]:
    return lambda mb, x, y: getattr(mb, op)(x=x, y=y), expected, x, y


def truth(op: str, expected: Any) -> tuple[Any, ...]:
    """Of two numbers; a model gives no truth values, so that they become numbers."""
    return (
        lambda mb, x, y: mb.cast(x=getattr(mb, op)(x=x, y=y), dtype="fp32"),
        lambda x, y: expected(x, y).float(),
        CLOSE_CALLS,
        THRESHOLDS,
    )


def logical(op: str, expected: Any) -> tuple[Any, ...]:
    """Of the signs of two arrays."""
    return (
        lambda mb, x, y: mb.cast(
            x=getattr(mb, op)(x=mb.greater(x=x, y=np.float32(0)), y=mb.greater(x=y, y=np.float32(0))), dtype="fp32"
        ),
        lambda x, y: expected(x > 0, y > 0).float(),
        X,
        Y,
    )


CASES = {
    "abs": unary("abs", torch.abs),
    "add": binary("add", torch.add),
    "add: a number": (lambda mb, x: mb.add(x=np.float32(0.3), y=x), lambda x: x + 0.3, X),
    "add: integers": binary("add", torch.add, COUNTS, DIVISORS),
    "cast: to an integer": (lambda mb, x: mb.cast(x=x, dtype="int32"), lambda x: x.to(torch.int32), X * 3),
    "cast: to a small integer": (
        lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="uint8"), dtype="fp32"),
        lambda x: x.to(torch.uint8).float(),
        np.array([0, 3.7, 255], np.float32),
    ),
    "cast: to a truth value": (
        lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="fp32"),
        lambda x: x.bool().float(),
        np.array([0, -0.5, 2], np.float32),
    ),
    "cast: from an integer": (lambda mb, x: mb.cast(x=x, dtype="fp32"), lambda x: x.float(), COUNTS),
    "clip": (lambda mb, x: mb.clip(x=x, alpha=-0.5, beta=1.25), lambda x: x.clamp(-0.5, 1.25), X),
    "clip: without an end": (lambda mb, x: mb.clip(x=x, alpha=0.0, beta=np.inf), lambda x: x.clamp(0), X),
    "cos": unary("cos", torch.cos),
    "exp": unary("exp", torch.exp),
    "floor": unary("floor", torch.floor),
    "floor_div": binary("floor_div", lambda x, y: torch.div(x, y, rounding_mode="floor")),
    "floor_div: integers": binary("floor_div", lambda x, y: torch.div(x, y, rounding_mode="floor"), COUNTS, DIVISORS),
    "greater": truth("greater", torch.gt),
    "identity": unary("identity", torch.clone),
    "log": (lambda mb, x: mb.log(x=x), torch.log, ABOVE),
    "log: epsilon": (lambda mb, x: mb.log(x=x, epsilon=1.5), lambda x: torch.log(x + 1.5), ABOVE),
    "maximum": binary("maximum", torch.maximum),
    "minimum": binary("minimum", torch.minimum),
    "mul": binary("mul", torch.mul),
    "pow": binary("pow", torch.pow, ABOVE, Y),
    "pow: a square": (lambda mb, x: mb.pow(x=x, y=np.float32(2)), lambda x: x * x, X),
    "real_div": binary("real_div", torch.div),
    "rsqrt": (lambda mb, x: mb.rsqrt(x=x), torch.rsqrt, ABOVE),
    "rsqrt: epsilon": (lambda mb, x: mb.rsqrt(x=x, epsilon=0.25), lambda x: torch.rsqrt(x + 0.25), ABOVE),
    "sin": unary("sin", torch.sin),
    "sqrt": unary("sqrt", torch.sqrt, ABOVE),
    "square": unary("square", torch.square),
    "sub": binary("sub", torch.sub),
    "sub: the other way": binary("sub", torch.sub, Y, X),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


def test_a_type_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="unknown type 'fp8'; known are: bool, fp16"):
        MIL_OPS["cast"](X, "fp8")
