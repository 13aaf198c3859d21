"""Inputs and outputs as a package describes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pocketprior.core.errors import GraphError, PackError
from pocketprior.runtimes.mil.schema import Model
from pocketprior.runtimes.mil.values import Feature, Sizes, read_feature

FLOAT32, RGB, GRAY = 65568, 20, 10


def described(**kind: Any) -> Any:
    """The description of an input x."""
    model = Model(description={"input": [{"name": "x", "type": kind}]})
    return model.description.input[0]


def sizes(*shape: int) -> tuple[Sizes, ...]:
    return tuple(Sizes(size, size) for size in shape)


def test_one_shape() -> None:
    feature = read_feature(described(multiArrayType={"shape": [1, 3], "dataType": FLOAT32}), "here")
    assert feature == Feature("x", "float32", (sizes(1, 3),))
    assert feature.open_shape() == (1, 3)


def test_some_shapes() -> None:
    shapes = {"shapes": [{"shape": [1, 4]}, {"shape": [1, 8]}]}
    array = {"shape": [1, 4], "dataType": FLOAT32, "enumeratedShapes": shapes}
    feature = read_feature(described(multiArrayType=array), "here")
    assert feature.shapes == (sizes(1, 4), sizes(1, 8))
    assert feature.open_shape() == (1, "?")


def test_a_range() -> None:
    ranges = {"sizeRanges": [{"lowerBound": 1, "upperBound": 1}, {"lowerBound": 4, "upperBound": -1}]}
    array = {"shape": [1, 4], "dataType": FLOAT32, "shapeRange": ranges}
    feature = read_feature(described(multiArrayType=array), "here")
    assert feature.shapes == ((Sizes(1, 1), Sizes(4, None)),)
    assert feature.open_shape() == (1, "?")
    feature.check(np.zeros((1, 999), np.float32), "here")


def test_any_shape() -> None:
    feature = read_feature(described(multiArrayType={"dataType": FLOAT32}), "here")
    feature.check(np.zeros((2, 3, 4), np.float32), "here")
    assert feature.open_shape() == ()
    assert str(feature) == "float32 of any shape"


@pytest.mark.parametrize(
    ("flexible", "expected"),
    [
        ({}, (1, 3, 8, 6)),
        ({"enumeratedSizes": {"sizes": [{"height": 8, "width": 6}, {"height": 8, "width": 9}]}}, (1, 3, 8, "?")),
        (
            {
                "imageSizeRange": {
                    "heightRange": {"lowerBound": 8, "upperBound": 16},
                    "widthRange": {"lowerBound": 6, "upperBound": 6},
                }
            },
            (1, 3, "?", 6),
        ),
    ],
)
def test_images(flexible: dict[str, Any], expected: tuple[int | str, ...]) -> None:
    image = {"height": 8, "width": 6, "colorSpace": RGB, **flexible}
    feature = read_feature(described(imageType=image), "here")
    assert (feature.dtype, feature.colour) == ("float32", "rgb")
    assert feature.open_shape() == expected
    feature.check(np.zeros((1, 3, 8, 6), np.float32), "here")


def test_a_gray_image_has_one_channel() -> None:
    feature = read_feature(described(imageType={"height": 8, "width": 6, "colorSpace": GRAY}), "here")
    assert feature.open_shape() == (1, 1, 8, 6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((1, 4), np.float32), r"here, input 'x': expected float32 \[1, 3..5, 2\], got float32 \[1, 4\]"),
        (np.zeros((1, 6, 2), np.float32), r"got float32 \[1, 6, 2\]"),
        (np.zeros((1, 4, 2)), r"expected float32 .*, got float64 \[1, 4, 2\]"),
        ([[1.0]], "expected float32 .*, got list"),
    ],
)
def test_arrays_that_are_refused(given: Any, message: str) -> None:
    feature = Feature("x", "float32", ((Sizes(1, 1), Sizes(3, 5), Sizes(2, 2)),))
    with pytest.raises(GraphError, match=message):
        feature.check(given, "here")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({}, "here: 'x' is neither an image nor an array of float16, float32"),
        ({"multiArrayType": {"shape": [1], "dataType": 7}}, "neither an image nor an array"),
        (
            {"multiArrayType": {"dataType": FLOAT32}, "isOptional": True},
            "'x' is optional, which .* make it required",
        ),
        ({"imageType": {"height": 8, "width": 6}}, "the image 'x' has no known order of channels"),
        (
            {
                "multiArrayType": {
                    "dataType": FLOAT32,
                    "enumeratedShapes": {"shapes": [{"shape": [1]}, {"shape": [1, 2]}]},
                }
            },
            "here: the shapes of 'x' differ in their number of dimensions",
        ),
    ],
)
def test_descriptions_that_are_refused(kind: dict[str, Any], message: str) -> None:
    with pytest.raises(PackError, match=message):
        read_feature(described(**kind), "here")
