"""Integers of 8 bits are what the definition says, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pocketprior.runtimes.mil.ops import MIL_OPS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4), np.float32) * 3
SCALES, ZEROS = np.array([0.1, 0.02, 0.05], np.float32), np.array([3, -7, 0], np.int8)
HALVES = np.array([-1.5, -0.5, 0.5, 1.5, 2.5], np.float32)


def quantized(x: Any, scale: Any, zero: Any, lowest: int, highest: int) -> np.ndarray:
    """Element by element, from the definition; Python's `round` takes halves to even numbers."""
    scales, zeros = (np.broadcast_to(part, x.shape) for part in (scale, zero))
    result = np.empty(x.shape, np.float32)
    for place in np.ndindex(result.shape):
        number = round(float(np.float32(x[place]) / scales[place])) + int(zeros[place])
        result[place] = min(highest, max(lowest, number))
    return result


def integers(expected: Any, x: np.ndarray = X, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: mb.cast(x=mb.quantize(input=x, **parameters), dtype="fp32"), expected, x


def there_and_back(expected: Any, output_dtype: str, **parameters: Any) -> tuple[Any, ...]:
    def build(mb: Any, x: Any) -> Any:
        return mb.dequantize(input=mb.quantize(input=x, output_dtype=output_dtype, **parameters), **parameters)

    return build, expected, X


STEP = np.float32(0.05)
CHANNELS = SCALES[:, None], ZEROS[:, None].astype(int)

CASES = {
    "quantize": integers(lambda x: quantized(x, STEP, 0, -128, 127), scale=STEP, output_dtype="int8"),
    "quantize: zero": integers(
        lambda x: quantized(x, STEP, 100, 0, 255), scale=STEP, zero_point=np.uint8(100), output_dtype="uint8"
    ),
    "quantize: beyond the range": integers(
        lambda x: quantized(x, STEP / 5, 0, -128, 127), scale=STEP / 5, output_dtype="int8"
    ),
    "quantize: halves go to even numbers": integers(
        lambda _: np.array([-2, 0, 0, 2, 2]), HALVES, scale=np.float32(1), output_dtype="int8"
    ),
    "quantize: channels": integers(
        lambda x: quantized(x, *CHANNELS, -128, 127), scale=SCALES, zero_point=ZEROS, axis=1, output_dtype="int8"
    ),
    "dequantize": there_and_back(lambda x: quantized(x, STEP, 0, -128, 127) * STEP, "int8", scale=STEP),
    "dequantize: zero": there_and_back(
        lambda x: (quantized(x, STEP, 100, 0, 255) - 100) * STEP, "uint8", scale=STEP, zero_point=np.uint8(100)
    ),
    "dequantize: channels": there_and_back(
        lambda x: (quantized(x, *CHANNELS, -128, 127) - CHANNELS[1]) * CHANNELS[0],
        "int8",
        scale=SCALES,
        zero_point=ZEROS,
        axis=-2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


def test_another_type() -> None:
    with pytest.raises(ValueError, match="unknown output_dtype 'int4'; known are: int8, uint8"):
        MIL_OPS["quantize"](X, SCALES[0], "int4")


def test_a_vector_without_an_axis() -> None:
    with pytest.raises(ValueError, match="a vector of 3 parameters needs an axis"):
        MIL_OPS["quantize"](X, SCALES, "int8")
