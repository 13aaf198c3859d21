"""Shapes are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketprior.runtimes.mil.ops import MIL_OPS

X = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
OTHER = -X
IMAGE = np.arange(2 * 8 * 4 * 6, dtype=np.float32).reshape(2, 8, 4, 6)
ONES = X.reshape(1, 2, 1, 12)
SIZES = np.array([3, 2], np.int32)
VOLUME = np.array([12, 2], np.int32)
ENDS = np.array([2, 9], np.int32)


def plain(op: str, expected: Any, x: np.ndarray = X, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x: getattr(mb, op)(x=x, **parameters), expected, x


def several(op: str, expected: Any, **parameters: Any) -> tuple[Any, ...]:
    return lambda mb, x, y: getattr(mb, op)(values=(x, y), **parameters), expected, X, OTHER


def scalars(mb: Any, x: Any) -> list[Any]:
    """The elements of a vector of two, each without a dimension."""
    return [mb.slice_by_index(x=x, begin=[i], end=[i + 1], squeeze_mask=[True]) for i in range(2)]


def blocks(x: torch.Tensor, size: int) -> torch.Tensor:
    """Blocks of pixels to channels, the place in the block before the channel."""
    places = [x[:, :, i::size, j::size] for i in range(size) for j in range(size)]
    return torch.cat(places, 1)


def unblocked(x: torch.Tensor, size: int) -> torch.Tensor:
    n, c, h, w = x.shape
    result = torch.empty(n, c // size**2, h * size, w * size)
    for place, channels in enumerate(x.split(c // size**2, 1)):
        result[:, :, place // size :: size, place % size :: size] = channels
    return result


CASES = {
    "concat": several("concat", lambda x, y: torch.cat([x, y], 1), axis=1),
    "concat: last dimension": several("concat", lambda x, y: torch.cat([x, y], -1), axis=-1),
    "concat: with a constant": (
        lambda mb, x: mb.concat(values=(x, OTHER[:, :1]), axis=1),
        lambda x: torch.cat([x, torch.from_numpy(OTHER[:, :1])], 1),
        X,
    ),
    "concat: numbers": (lambda mb, x: mb.concat(values=scalars(mb, x)[::-1], axis=0), lambda x: x.flip(0), SIZES),
    "expand_dims": plain("expand_dims", lambda x: x[:, None], axes=[1]),
    "expand_dims: several": plain("expand_dims", lambda x: x[:, None, :, :, None], axes=[-1, 1]),
    "fill": (
        lambda mb, x, sizes: mb.add(x=mb.fill(shape=sizes, value=np.float32(1.5)), y=x),
        lambda x, sizes: torch.full(tuple(sizes.tolist()), 1.5) + x,
        np.array([1, 2], np.float32),
        SIZES,
    ),
    "fill: zeros": (
        lambda mb, x: mb.add(x=mb.fill(shape=[3, 2]), y=x),
        lambda x: x.expand(3, 2),
        np.array([1, 2], np.float32),
    ),
    "pad": plain("pad", lambda x: F.pad(x, (1, 2)), pad=[1, 2]),
    "pad: a number": plain(
        "pad", lambda x: F.pad(x, (0, 1, 2, 0), value=-1.5), pad=[2, 0, 0, 1], mode="constant", constant_val=-1.5
    ),
    "pad: reflection": plain(
        "pad", lambda x: F.pad(x, (3, 2, 1, 2), mode="reflect"), IMAGE, pad=[1, 2, 3, 2], mode="reflect"
    ),
    "pad: replication": plain(
        "pad", lambda x: F.pad(x, (1, 4, 5, 0), mode="replicate"), IMAGE, pad=[5, 0, 1, 4], mode="replicate"
    ),
    "pad: computed": (
        lambda mb, x, pad: mb.pad(x=x, pad=pad),
        lambda x, _: F.pad(x, (0, 2, 1, 0)),
        X,
        np.array([0, 0, 1, 0, 0, 2], np.int32),
    ),
    "pixel_shuffle": plain("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), IMAGE, upscale_factor=2),
    "pixel_unshuffle": plain(
        "pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), IMAGE, downscale_factor=np.uint32(2)
    ),
    "reshape": plain("reshape", lambda x: x.reshape(4, 6), shape=[4, 6]),
    "reshape: what is left": plain("reshape", lambda x: x.reshape(3, 8), shape=[3, -1]),
    "reshape: a size that stays": plain("reshape", lambda x: x.reshape(2, 1, 12), X.reshape(2, 4, 3), shape=[0, 1, -1]),
    "reshape: sizes that stay, from the last on": plain(
        "reshape", lambda x: x.reshape(1, 1, 6, 4), X.reshape(6, 4), shape=[1, 0, -1, 0]
    ),
    "reshape: computed": (lambda mb, x, s: mb.reshape(x=x, shape=s), lambda x, _: x.reshape(12, 2), X, VOLUME),
    "shape": plain("shape", lambda _: torch.tensor([2, 3, 4], dtype=torch.int32)),
    "squeeze": plain("squeeze", lambda x: x.squeeze(), ONES),
    "squeeze: one of them": plain("squeeze", lambda x: x.squeeze(-2), ONES, axes=[-2]),
    "squeeze: what is larger stays": plain("squeeze", lambda x: x.squeeze(0), ONES, axes=[0, 1]),
    "stack": several("stack", lambda x, y: torch.stack([x, y], 1), axis=1),
    "stack: last dimension": several("stack", lambda x, y: torch.stack([x, y], -1), axis=-1),
    "tile": plain("tile", lambda x: x.repeat(1, 3, 2), reps=[1, 3, 2]),
    "transpose": plain("transpose", lambda x: x.permute(2, 0, 1), perm=[2, 0, 1]),
    "transpose: from the end": plain("transpose", lambda x: x.permute(0, 2, 1), perm=[0, -1, -2]),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mode": "circular"}, "unknown mode 'circular'; known are: constant, reflect, replicate"),
        ({"mode": "reflect"}, r"a reflection cannot add \[3, 4\] to \[2, 3, 4\]"),
    ],
)
def test_a_pad_without_definition(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MIL_OPS["pad"](X, (3, 4), **parameters)
