"""Parameters are handed over as a function is annotated, and no others than it has."""

from __future__ import annotations

import numpy as np
import pytest

from pocketprior.core.errors import PackError
from pocketprior.runtimes.mil.interpreter import CONVERSIONS, Signature
from pocketprior.runtimes.mil.ops import MIL_OPS
from pocketprior.runtimes.mil.ops.quantization import CONSTEXPR
from pocketprior.runtimes.mil.values import ArrayTuple, Ints, MilArray


def example(
    x: MilArray, sizes: Ints, mode: str = "a", parts: ArrayTuple = (), axis: int | None = None, flag: bool = False
):
    return x, sizes, mode, parts, axis, flag


SIGNATURE = Signature.of(example)


@pytest.mark.parametrize("op", [*MIL_OPS, *CONSTEXPR])
def test_every_op_is_annotated_with_known_words(op: str) -> None:
    assert set(Signature.of({**MIL_OPS, **CONSTEXPR}[op]).kinds.values()) <= {*CONVERSIONS, "ArrayTuple"}


def test_conversions() -> None:
    assert SIGNATURE.convert("sizes", [np.array([[1, 2], [3, 4]], np.int8)]) == (1, 2, 3, 4)
    assert SIGNATURE.convert("sizes", [np.array(5)]) == (5,)
    assert SIGNATURE.convert("axis", [np.array(-1, np.int32)]) == -1
    assert SIGNATURE.convert("flag", [np.array([True])]) is True
    assert SIGNATURE.convert("mode", ["b"]) == "b"
    assert [part.shape for part in SIGNATURE.convert("parts", [np.zeros(2), np.zeros(())])] == [(2,), ()]


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("mode", [np.array(1)], "expected a word, got ndarray"),
        ("axis", [np.array([1, 2])], "can only convert an array of size 1"),
        ("x", [np.zeros(2), np.zeros(2)], "the parameter 'x' takes one value, got 2"),
        ("x", [], "takes one value, got 0"),
    ],
)
def test_values_that_are_something_else(name: str, parts: list[object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        SIGNATURE.convert(name, parts)


def test_parameters_that_are_unknown_or_missing() -> None:
    SIGNATURE.check(["x", "sizes", "axis"], "here")
    with pytest.raises(PackError, match="here: the parameter 'pad' is unknown here; the op takes: x, sizes, mode"):
        SIGNATURE.check(["x", "sizes", "pad"], "here")
    with pytest.raises(PackError, match="here: the parameter 'sizes' is missing"):
        SIGNATURE.check(["x"], "here")
