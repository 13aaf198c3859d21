"""Constants in a specification: whole, of a known type, with known sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pocketprior.core.errors import PackError
from pocketprior.runtimes.mil.schema import Model
from pocketprior.runtimes.mil.values import WeightFile, read_value

BOOL, STRING, HALF, FLOAT, DOUBLE, INT8, INT32, INT64, INT4 = 1, 2, 10, 11, 12, 21, 23, 24, 25


def value(kind: int, shape: list[int], **tensor: Any) -> Any:
    """A Value message; tensor: field -> values."""
    dimensions = [{"constant": {"size": size}} for size in shape]
    described = {"tensorType": {"dataType": kind, "rank": len(shape), "dimensions": dimensions}}
    held = {name: {"values": values} for name, values in tensor.items()}
    op = {"attributes": {"val": {"type": described, "immediateValue": {"tensor": held}}}}
    program = {"functions": {"main": {"block_specializations": {"x": {"operations": [op]}}}}}
    return (
        Model(mlProgram=program).mlProgram.functions["main"].block_specializations["x"].operations[0].attributes["val"]
    )


def no_weights(name: str) -> WeightFile:
    raise AssertionError(f"{name} was asked for")


def read(held: Any) -> Any:
    return read_value(held, no_weights, "here")


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (value(FLOAT, [2, 1], floats=[0.5, -1]), np.array([[0.5], [-1]], np.float32)),
        (value(HALF, [2], bytes=np.array([0.5, -1], np.float16).tobytes()), np.array([0.5, -1], np.float16)),
        (value(DOUBLE, [], doubles=[0.1]), np.array(0.1)),
        (value(INT32, [], ints=[-7]), np.array(-7, np.int32)),
        (value(INT64, [1], longInts=[1 << 40]), np.array([1 << 40])),
        (value(INT8, [2], bytes=b"\xff\x01"), np.array([-1, 1], np.int8)),
        (value(INT4, [3], bytes=b"\x1f\x07"), np.array([-1, 1, 7], np.int8)),
        (value(BOOL, [2], bools=[True, False]), np.array([True, False])),
        (value(INT32, [0], ints=[]), np.zeros(0, np.int32)),
    ],
)
def test_arrays(held: Any, expected: np.ndarray) -> None:
    found = read(held)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def test_a_word() -> None:
    assert read(value(STRING, [], strings=["same"])) == "same"


def open_size() -> Any:
    held = value(FLOAT, [2], floats=[1, 2])
    held.type.tensorType.dimensions[0].ClearField("constant")
    held.type.tensorType.dimensions[0].unknown.SetInParent()
    return held


def open_shape() -> Any:
    held = open_size()
    held.type.tensorType.dimensions[0].unknown.variadic = True
    return held


def no_tensor() -> Any:
    held = value(FLOAT, [2], floats=[1, 2])
    held.type.ClearField("tensorType")
    return held


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (value(FLOAT, [3], floats=[1, 2]), r"here: 2 elements do not fill the type float32 \[3\]"),
        (value(HALF, [3], bytes=b"1234"), r"here: 4 bytes do not fill the type float16 \[3\]"),
        (value(FLOAT, [3]), r"here: a constant of the type float32 \[3\] has no value"),
        (value(13, [1], floats=[1]), "here: unknown elements of type number 13; known are: bool, string, float16"),
        (open_size(), r"here: expected a constant of known sizes, got the type float32 \[\?\]"),
        (open_shape(), r"got the type float32 \[...\]"),
        (no_tensor(), "here: expected a tensor, got another type"),
    ],
)
def test_what_is_refused(held: Any, message: str) -> None:
    with pytest.raises(PackError, match=message):
        read(held)
