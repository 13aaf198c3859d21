"""What arrays hold over real calls, and where 8 bits reach to."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from pocketprior.export.targets.calibration import FloatPack, Range, multiply_adds, params_of, ranges


def test_ranges_hold_zero_and_all_that_was_seen(opened: FloatPack, feed: dict[str, np.ndarray]) -> None:
    found = ranges(opened.models["fused"], [feed])
    assert all(each.least <= 0 <= each.largest for each in found.values())
    more = ranges(opened.models["fused"], [feed, {**feed, "noise": 3 * feed["noise"]}])
    assert all(
        more[name].largest >= each.largest and more[name].values == 2 * each.values for name, each in found.items()
    )


def test_8_bits_reach_to_where_the_error_is_least() -> None:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["picture", "kernel"], ["y"])],
        "one",
        [helper.make_tensor_value_info("picture", 1, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 8, 2, 2])],
        [numpy_helper.from_array(np.ones((8, 1, 7, 7), np.float32), "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    picture = np.random.default_rng(1).random((1, 1, 8, 8), np.float32)
    picture[0, 0, 0, 0] = 1.3  # one pixel alone: it is cheaper to cut a part of it off
    found = ranges(model, [{"picture": picture}] * 2)["picture"]
    assert (found.least, found.values) == (0, 128)
    assert 0.9 < found.largest < 1.3
    assert found.means == pytest.approx([picture.mean()])


@pytest.mark.parametrize(("least", "largest"), [(-1.0, 2.0), (0.0, 0.7), (-3.0, 0.0), (0.0, 0.0)])
def test_zero_has_a_code_of_its_own(least: float, largest: float) -> None:
    scale, zero = params_of(Range(least, largest, 1, ()))
    assert scale > 0
    assert 0 <= zero <= 255
    assert abs((0 - zero) * scale - least) <= scale / 2 + 1e-12


def test_operations_are_those_of_the_convolutions(opened: FloatPack, feed: dict[str, np.ndarray]) -> None:
    image = {"image": feed["image"]}
    model = opened.models["predict"]
    found = multiply_adds(model, ranges(model, [image]))
    assert sorted(found.values()) == sorted([4 * 5 * 6 * 12 * 9, 4 * 5 * 48 * 6 * 9])
