"""A checked graph lets nothing in or out that its specification does not have, and says what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pocketprior.core.errors import GraphError
from pocketprior.core.pack.manifest import ArraySpec, GraphSpec
from pocketprior.runtimes.check import checked

IMAGE = ArraySpec("float32", (1, 3, "h", "w"))
SPEC = GraphSpec({"x": IMAGE, "base": IMAGE, "t": ArraySpec("float32", (1,))}, {"v": IMAGE}, {})
T = np.ones(1, np.float32)


def picture(height: int = 8, width: int = 12, channels: int = 3, dtype: type[np.generic] = np.float32) -> Any:
    return np.zeros((1, channels, height, width), dtype)


def answering(**outputs: Any) -> Callable[..., dict[str, Any]]:
    return checked("denoise", lambda **_: outputs, SPEC, multiple_of=4)


def test_a_right_call_passes_unchanged() -> None:
    v = picture()
    assert answering(v=v)(x=picture(), base=picture(), t=T)["v"] is v


WRONG_INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"x": picture(), "t": T}, "expected the inputs base, t, x, got t, x"),
    "too much": (
        {"x": picture(), "base": picture(), "t": T, "y": T},
        "got base, t, x, y",
    ),
    "none": ({}, r"got \(none\)"),
    "float64": (
        {"x": picture(dtype=np.float64), "base": picture(), "t": T},
        "input 'x': expected an array of float32, got float64",
    ),
    "uint8": ({"x": picture(dtype=np.uint8), "base": picture(), "t": T}, "got uint8"),
    "a list": ({"x": [[1.0]], "base": picture(), "t": T}, "expected an array of float32, got list"),
    "channels": ({"x": picture(channels=4), "base": picture(), "t": T}, r"got \[1, 4, 8, 12\]"),
    "dimensions": ({"x": T, "base": picture(), "t": T}, r"expected the shape \[1, 3, 'h', 'w'\].*, got \[1\]"),
    "two sizes": ({"x": picture(), "base": picture(8, 16), "t": T}, "'base': .* with h = 8, w = 12"),
    "scalar": (
        {"x": picture(), "base": picture(), "t": np.float32(1)},
        "input 't': expected an array of float32|expected the shape",
    ),
    "no multiple": ({"x": picture(8, 10), "base": picture(8, 10), "t": T}, "w to be a multiple of 4, got 10"),
    "empty": ({"x": picture(0, 12), "base": picture(0, 12), "t": T}, "expected h to be a multiple of 4, got 0"),
}


@pytest.mark.parametrize(("inputs", "words"), WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_wrong_inputs(inputs: dict[str, Any], words: str) -> None:
    def never(**_: Any) -> dict[str, Any]:
        raise AssertionError("a wrong call reached the graph")

    with pytest.raises(GraphError, match=f"graph 'denoise'.*{words}"):
        checked("denoise", never, SPEC, multiple_of=4)(**inputs)


WRONG_OUTPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "another name": ({"eps": picture()}, "expected the outputs v, got eps"),
    "half precision": ({"v": picture(dtype=np.float16)}, "output 'v': expected an array of float32, got float16"),
    "another size": ({"v": picture(8, 8)}, r"output 'v': expected .* with h = 8, w = 12, got \[1, 3, 8, 8\]"),
    "no batch": ({"v": picture()[0]}, "output 'v': expected the shape"),
}


@pytest.mark.parametrize(("outputs", "words"), WRONG_OUTPUTS.values(), ids=WRONG_OUTPUTS)
def test_wrong_outputs(outputs: dict[str, Any], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        answering(**outputs)(x=picture(), base=picture(), t=T)
