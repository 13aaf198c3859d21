"""Convolutions are those of PyTorch, and, where PyTorch has no such padding, sums written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketprior.runtimes.mil.ops import MIL_OPS, reduction

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 4, 9, 7), np.float32)
LINE = RNG.standard_normal((2, 4, 11), np.float32)
VOLUME = RNG.standard_normal((1, 4, 5, 4, 6), np.float32)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32) / np.float32(
        np.sqrt(np.prod(shape[1:]))
    )


def conv(x: np.ndarray, weight: np.ndarray, expected: Any, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: mb.conv(x=x, weight=weight, **parameters), lambda x: expected(x, torch.from_numpy(weight)), x


def same(x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """With as many windows as strides begin, an odd element more after."""
    totals = [
        max(0, (-(-n // stride) - 1) * stride + k - n) for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)
    ]
    ends = [(t // 2, t - t // 2) for t in totals]
    return F.conv2d(F.pad(x, [*ends[1], *ends[0]]), weight, stride=stride)


BIAS = weights(6)
PAD = {"pad_type": "custom", "pad": [1, 2, 0, 1]}

CASES = {
    "conv": conv(IMAGE, weights(6, 4, 3, 3), F.conv2d),
    "conv: bias": conv(IMAGE, weights(6, 4, 3, 3), lambda x, w: F.conv2d(x, w, torch.from_numpy(BIAS)), bias=BIAS),
    "conv: padding": conv(IMAGE, weights(6, 4, 3, 3), lambda x, w: F.conv2d(F.pad(x, (0, 1, 1, 2)), w), **PAD),
    "conv: strides": conv(IMAGE, weights(6, 4, 3, 2), lambda x, w: F.conv2d(x, w, stride=(2, 3)), strides=[2, 3]),
    "conv: dilations": conv(IMAGE, weights(6, 4, 3, 2), lambda x, w: F.conv2d(x, w, dilation=(2, 3)), dilations=[2, 3]),
    "conv: groups": conv(IMAGE, weights(6, 2, 3, 3), lambda x, w: F.conv2d(x, w, groups=2), groups=2),
    "conv: depthwise": conv(
        IMAGE, weights(4, 1, 3, 3), lambda x, w: F.conv2d(x, w, groups=4, padding=1), groups=4, pad_type="same"
    ),
    "conv: depthwise, strides and dilations": conv(
        IMAGE,
        weights(4, 1, 2, 3),
        lambda x, w: F.conv2d(x, w, groups=4, stride=2, dilation=2),
        groups=4,
        strides=[2, 2],
        dilations=[2, 2],
    ),
    "conv: several outputs of each channel": conv(
        IMAGE, weights(8, 1, 3, 3), lambda x, w: F.conv2d(x, w, groups=4), groups=4
    ),
    "conv: points": conv(IMAGE, weights(6, 4, 1, 1), F.conv2d),
    "conv: points in groups": conv(IMAGE, weights(6, 2, 1, 1), lambda x, w: F.conv2d(x, w, groups=2), groups=2),
    "conv: every second point": conv(IMAGE, weights(6, 4, 1, 1), lambda x, w: F.conv2d(x, w, stride=2), strides=[2, 2]),
    "conv: points with padding": conv(
        IMAGE, weights(6, 4, 1, 1), lambda x, w: F.conv2d(F.pad(x, (0, 1, 1, 2)), w), **PAD
    ),
    "conv: same": conv(IMAGE, weights(6, 4, 3, 2), lambda x, w: same(x, w, 1), pad_type="same"),
    "conv: same, strides": conv(
        IMAGE, weights(6, 4, 3, 4), lambda x, w: same(x, w, 2), pad_type="same", strides=[2, 2]
    ),
    "conv: lines": conv(LINE, weights(6, 4, 3), lambda x, w: F.conv1d(x, w, stride=2), strides=[2]),
    "conv: volumes": conv(
        VOLUME, weights(6, 4, 3, 2, 3), lambda x, w: F.conv3d(x, w, stride=(2, 1, 1)), strides=[2, 1, 1]
    ),
    "conv: weights that are computed": (
        lambda mb, x, weight: mb.conv(x=x, weight=weight),
        F.conv2d,
        IMAGE,
        weights(6, 4, 3, 3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_convolution_is_pytorchs(data: st.DataObject) -> None:
    small = st.integers(1, 3)
    groups, inputs, outputs, height, width, batch = (data.draw(small) for _ in range(6))
    stride, dilation = data.draw(st.tuples(small, small)), data.draw(st.tuples(small, small))
    kernel = data.draw(st.tuples(small, small))
    padding = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    shape = [d * (k - 1) + n for d, k, n in zip(dilation, kernel, (height, width), strict=True)]
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    x = rng.standard_normal((batch, inputs * groups, *shape), np.float32)
    weight = rng.standard_normal((outputs * groups, inputs, *kernel), np.float32)
    expected = F.conv2d(*map(torch.from_numpy, (x, weight)), None, stride, padding, dilation, groups)
    pad = (padding[0], padding[0], padding[1], padding[1])
    found = MIL_OPS["conv"](x, weight, None, stride, "custom", pad, dilation, groups)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 32])
def test_an_image_that_is_multiplied_in_parts(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.standard_normal((1, 32, 17, 20), np.float32)
    monkeypatch.setattr(reduction, "_BYTES", 5 * 9 * x[:, :, 0].nbytes)  # parts of 5 lines, the last one of 2
    monkeypatch.setattr(reduction, "_ELEMENTS", 7 * x[0, 0].size)  # parts of 7 channels, the last one of 4
    weight = weights(32, 32 // groups, 3, 3)
    expected = F.conv2d(*map(torch.from_numpy, (x, weight)), padding=1, groups=groups)
    found = MIL_OPS["conv"](x, weight, pad_type="same", groups=groups)
    np.testing.assert_allclose(found, expected, atol=5e-6)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pad_type": "reflect"}, "unknown pad_type 'reflect'; known are: valid, custom, same"),
        ({"pad_type": "custom"}, "pad_type 'custom' needs a pad of 4 numbers, got None"),
        ({"pad_type": "custom", "pad": (1, 1)}, "needs a pad of 4 numbers"),
        ({"groups": 2}, r"4 channels do not fit weights \[6, 4, 3, 3\] in 2 groups"),
        ({"dilations": (5, 5)}, "a window of 11 does not fit into 9 with 0 and 0 added"),
    ],
)
def test_what_fits_no_definition(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MIL_OPS["conv"](IMAGE, weights(6, 4, 3, 3), **parameters)
