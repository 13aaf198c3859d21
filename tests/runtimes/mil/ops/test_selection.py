"""Parts of arrays are NumPy's indexing, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketprior.runtimes.mil.ops import MIL_OPS

X = np.arange(2 * 5 * 4, dtype=np.float32).reshape(2, 5, 4)
COND = np.array([[-1], [1], [2], [-3], [0]], np.float32)
PLACES = np.array([[3, 0], [1, 1]], np.int32)


def sliced(expected: Any, begin: list[int], end: list[int], **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: mb.slice_by_index(x=x, begin=begin, end=end, **parameters), expected, X


def gathered(expected: Any, indices: Any, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: mb.gather(x=x, indices=np.array(indices, np.int32), **parameters), expected, X


def part(number: int, **parameters: Any) -> Any:
    return lambda mb, x: mb.split(x=x, **parameters)[number]


CASES = {
    "gather": gathered(lambda x: x[[1, 0, 1]], [1, 0, 1]),
    "gather: one": gathered(lambda x: x[:, 3], 3, axis=1),
    "gather: last dimension": gathered(lambda x: x[..., [3, 3, 0]], [3, 3, 0], axis=-1),
    "gather: several dimensions": gathered(lambda x: x[:, PLACES], PLACES, axis=1),
    "gather: places that are computed": (
        lambda mb, x, places: mb.gather(x=x, indices=places, axis=1),
        lambda x, places: x[:, places],
        X,
        PLACES,
    ),
    "slice_by_index": sliced(lambda x: x[0:1, 1:4, 2:4], [0, 1, 2], [1, 4, 4]),
    "slice_by_index: from the end": sliced(lambda x: x[:, -4:-1, -3:4], [0, -4, -3], [2, -1, 4]),
    "slice_by_index: strides": sliced(lambda x: x[:, 1:5:2, 0:4:3], [0, 1, 0], [2, 5, 4], stride=[1, 2, 3]),
    "slice_by_index: backwards": (
        lambda mb, x: mb.slice_by_index(x=x, begin=[0, 3, 0], end=[2, 0, 4], stride=[1, -1, 1]),
        lambda x: x.flip(1)[:, 1:4],
        X,
    ),
    "slice_by_index: backwards over all": (
        lambda mb, x: mb.slice_by_index(
            x=x, begin=[0, 0, 0], end=[0, 0, 0], stride=[1, -1, 1], begin_mask=[True] * 3, end_mask=[True] * 3
        ),
        lambda x: x.flip(1),
        X,
    ),
    "slice_by_index: masks": sliced(
        lambda x: x[:, :3, 1:], [1, 9, 1], [2, 3, 0], begin_mask=[True, True, False], end_mask=[True, False, True]
    ),
    "slice_by_index: one of a dimension": sliced(
        lambda x: x[:, 2, 1:3], [0, 2, 1], [2, 0, 3], squeeze_mask=[False, True, False]
    ),
    "slice_by_index: the last of a dimension": sliced(
        lambda x: x[1, :, -1], [1, 0, -1], [0, 5, 0], squeeze_mask=[True, False, True]
    ),
    "slice_by_size": (
        lambda mb, x: mb.slice_by_size(x=x, begin=[0, 1, 2], size=[2, 3, 1]),
        lambda x: x[:, 1:4, 2:3],
        X,
    ),
    "slice_by_size: all that follow": (
        lambda mb, x: mb.slice_by_size(x=x, begin=[1, 2, 0], size=[-1, -1, 4]),
        lambda x: x[1:, 2:],
        X,
    ),
    "slice_by_size: from the end": (
        lambda mb, x: mb.slice_by_size(x=x, begin=[0, -2, 0], size=[2, 2, 4]),
        lambda x: x[:, 3:],
        X,
    ),
    "split": (part(1, num_splits=2, axis=2), lambda x: x[..., 2:], X),
    "split: sizes": (part(1, split_sizes=[1, 3, 1], axis=-2), lambda x: x[:, 1:4], X),
    "split: the last": (part(2, split_sizes=[1, 3, 1], axis=1), lambda x: x[:, 4:], X),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_slice_is_numpys(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    x = np.arange(np.prod(shape)).reshape(shape)
    bounds = [[data.draw(st.integers(-n - 1, n + 1)) for n in shape] for _ in "be"]
    steps = [data.draw(st.sampled_from([-2, -1, 1, 2, 3])) for _ in shape]
    masks = [[data.draw(st.booleans()) for _ in shape] for _ in "be"]
    parts = [
        slice(None if b_mask else b, None if e_mask else e, s)
        for b, e, s, b_mask, e_mask in zip(*bounds, steps, *masks, strict=True)
    ]
    found = MIL_OPS["slice_by_index"](x, *map(tuple, (*bounds, steps, *masks)))
    np.testing.assert_array_equal(found, x[tuple(parts)])


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), axis=st.sampled_from([0, 1, -1, -2]))
def test_a_split_is_undone_by_putting_together(sizes: list[int], axis: int) -> None:
    shape = [3, 3]
    shape[axis] = sum(sizes)
    x = np.arange(np.prod(shape)).reshape(shape)
    parts = MIL_OPS["split"](x, axis, None, tuple(sizes))
    assert [part.shape[axis] for part in parts] == sizes
    np.testing.assert_array_equal(np.concatenate(parts, axis), x)


@pytest.mark.parametrize(
    ("op", "arguments", "message"),
    [
        ("split", {"axis": 1, "num_splits": 2}, "5 cannot be split into 2 equal parts"),
        ("split", {"axis": 1}, "5 cannot be split into None equal parts"),
        ("split", {"axis": 1, "split_sizes": (2, 2)}, r"the sizes \[2, 2\] do not add up to 5"),
        (
            "slice_by_size",
            {"begin": (0, 3, 0), "size": (2, 3, 4)},
            r"fewer than \[2, 3, 4\] elements from \[0, 3, 0\]",
        ),
        (
            "gather",
            {"indices": np.array([0, -1]), "validate_indices": False},
            "expected indices from 0, got -1",
        ),
        ("gather", {"indices": np.array([0]), "batch_dims": 1}, "expected batch_dims 0, got 1"),
    ],
)
def test_parts_that_are_not_there(op: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MIL_OPS[op](X, **arguments)


def test_places_outside() -> None:
    with pytest.raises(IndexError, match="index 5 is out of bounds"):
        MIL_OPS["gather"](X, np.array([5]), 1)


def test_old_versions_count_from_the_end() -> None:
    np.testing.assert_array_equal(MIL_OPS["gather"](X, np.array([-1]), 1), X[:, -1:])
