from __future__ import annotations

import numpy as np
import pytest

from pocketprior.export.targets.weights import GROUP, WeightLayer, dequantize, layer_bytes, offered, quantize_weights


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def layer(*shape: int, axis: int = 0, spatial: bool = True) -> WeightLayer:
    return WeightLayer("a/b", "0" * 64, shape, axis, ("a",), spatial)


@pytest.mark.parametrize(("shape", "axis"), [((6, 5, 3, 3), 0), ((7, 12), 0), ((12, 7), 1)])
@pytest.mark.parametrize(("level", "largest"), [("w8", 127), ("w4", 7)])
def test_no_weight_is_further_off_than_its_code_allows(
    shape: tuple[int, ...], axis: int, level: str, largest: int
) -> None:
    array = weights(*shape)
    code = quantize_weights(array, level, axis)
    assert np.abs(code.q).max() == largest
    off = np.abs(dequantize(code, shape, axis) - array)
    clipped = 0.3 * np.abs(array).max()  # what 4 bits may cut off the largest of a group, for finer steps
    assert off.max() <= code.scale.max() / 2 + (clipped if level == "w4" else 1e-6)


def test_channels_do_not_share_a_scale() -> None:
    array = weights(4, 8, 3, 3)
    array[1] *= 1000
    off = np.abs(dequantize(quantize_weights(array, "w8"), array.shape) - array)
    assert off[[0, 2, 3]].max() < 0.02


@pytest.mark.parametrize("level", ["w8", "w4"])
def test_weights_that_are_zero(level: str) -> None:
    array = np.zeros((4, 8, 3, 3), np.float32)
    np.testing.assert_array_equal(dequantize(quantize_weights(array, level), array.shape), array)


def test_four_bits_are_better_than_the_largest_weight_as_their_end() -> None:
    array = weights(16, 64)
    scale = np.abs(array).max(axis=1, keepdims=True) / 7
    plain = np.square(np.round(array / scale) * scale - array).mean()
    assert np.square(dequantize(quantize_weights(array, "w4"), array.shape) - array).mean() < plain


def test_groups_divide_a_channel_and_hold_whole_kernels() -> None:
    assert quantize_weights(weights(4, 27), "w4").q.shape == (4, 27)
    assert quantize_weights(weights(4, 12, 3, 3), "w4").q.shape == (4 * 2, 54)
    assert quantize_weights(weights(2, 64, 3, 3), "w4").q.shape[1] == GROUP
    assert quantize_weights(weights(2, 4, 9, 9), "w4").q.shape[1] == 81  # one kernel is more than GROUP


def test_what_a_layer_can_have() -> None:
    assert "int8" not in offered(layer(8, 64, spatial=False))
    assert "w4" not in offered(layer(3, 171))
    assert offered(layer(8, 64)) == ("fp32", "fp16", "w8", "w4", "int8")


def test_bytes() -> None:
    given = layer(8, 64, 3, 3)
    assert layer_bytes(given, "fp32") == 4 * 4608
    assert layer_bytes(given, "fp16") == 2 * 4608
    assert layer_bytes(given, "w8") == 4608 + 4 * 8
    assert layer_bytes(given, "w4") == 2304 + 2 * 64
