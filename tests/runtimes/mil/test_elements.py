"""Numbers of less than 8 bits, and the types that a program declares."""

from __future__ import annotations

import numpy as np
import pytest

from pocketprior.runtimes.mil.values import ELEMENTS, TensorType, unpacked

FLOAT = ELEMENTS[11]


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_follow_each_other_from_the_least_significant_on(bits: int, signed: bool) -> None:
    numbers = np.random.default_rng(bits).integers(0, 1 << bits, 11)
    together = sum(int(number) << (bits * place) for place, number in enumerate(numbers))
    found = unpacked(together.to_bytes(-(-11 * bits // 8), "little"), 11, bits, signed)
    expected = np.where(signed & (numbers >= 1 << (bits - 1)), numbers - (1 << bits), numbers)
    np.testing.assert_array_equal(found, expected)


def test_a_type_takes_the_shapes_that_it_leaves_open() -> None:
    kind = TensorType(FLOAT, (1, None, 3))
    assert kind.takes((1, 7, 3))
    assert not kind.takes((1, 7, 4))
    assert not kind.takes((1, 7))
    assert not kind.takes((1, 7, 3, 1))
    assert TensorType(FLOAT, None).takes((1, 2, 3, 4))
    assert not TensorType(FLOAT, ()).takes((1,))
    assert str(kind) == "float32 [1, ?, 3]"
    assert str(TensorType(FLOAT, None)) == "float32 [...]"
