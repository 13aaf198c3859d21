"""Windows that slide over the spatial dimensions: what convolutions and pooling look through."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..elements import Array
from ..signatures import Ints

__all__ = ["Windows", "paddings"]

_SAME = ("same", "same_lower")


@dataclass(frozen=True)
class Windows:
    """before, after: what is added to each end of the spatial dimensions. sizes: the number of windows along them."""

    kernel: Ints
    strides: Ints
    dilations: Ints
    before: Ints
    after: Ints
    sizes: Ints

    @classmethod
    def over(
        cls,
        shape: Ints,
        kernel: Ints,
        strides: Ints | None,
        dilations: Ints | None,
        pad_type: str,
        pad: Ints | None,
        ceil_mode: bool = False,
    ) -> Windows:
        """The windows over spatial dimensions of this shape; None for 1 in each dimension.

        ceil_mode: the last window may reach beyond the end, if it begins before it, as in PyTorch.
        """
        ones = (1,) * len(shape)
        strides, dilations = strides or ones, dilations or ones
        reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
        before, after = paddings(shape, reach, strides, pad_type, pad)
        sizes, more = list[int](), list[int]()
        for n, r, s, first, last in zip(shape, reach, strides, before, after, strict=True):
            size = (n + first + last - r + (s - 1 if ceil_mode else 0)) // s + 1
            if ceil_mode and (size - 1) * s >= n + first:
                size -= 1
            if size < 1:
                raise ValueError(f"a window of {r} does not fit into {n} with {first} and {last} added")
            sizes.append(size)
            more.append(max(0, (size - 1) * s + r - n - first))
        after = tuple(map(max, after, more))
        return cls(kernel, strides, dilations, before, after, tuple(sizes))

    def taps(self) -> Iterator[Ints]:
        """The places inside a window, the last dimension fastest."""
        return np.ndindex(*self.kernel)

    def padded(self, x: Array, value: float = 0.0) -> Array:
        """x (n, channels, *spatial) with `value` around its spatial dimensions."""
        if not any(self.before) and not any(self.after):
            return x
        spatial = tuple(sum(sizes) for sizes in zip(x.shape[2:], self.before, self.after, strict=True))
        padded = np.full((*x.shape[:2], *spatial), value, x.dtype)
        inner = tuple(slice(first, first + n) for first, n in zip(self.before, x.shape[2:], strict=True))
        padded[(..., *inner)] = x
        return padded

    def seen(self, tap: Ints, first: int = 0, last: int | None = None) -> tuple[slice, ...]:
        """What all windows, or those from `first` to `last` along the first dimension, see at `tap`."""
        ranges = [(0, size) for size in self.sizes]
        ranges[0] = (first, ranges[0][1] if last is None else last)
        return tuple(
            slice(t * d + a * s, t * d + (b - 1) * s + 1, s)
            for t, d, s, (a, b) in zip(tap, self.dilations, self.strides, ranges, strict=True)
        )

    @property
    def points(self) -> bool:
        """Whether each window is one element, and they are all of them."""
        return math.prod(self.kernel) == 1 and set(self.strides) == {1}


def paddings(shape: Ints, reach: Ints, strides: Ints, pad_type: str, pad: Ints | None) -> tuple[Ints, Ints]:
    """What is added before and after each dimension. reach: how much of a dimension a window covers.

    With "same" there is a window for every `stride` elements begun, as in TensorFlow; where what is added cannot be
    halved, there is one more after, with "same_lower" one more before.
    """
    if pad_type == "custom":
        if pad is None or len(pad) != 2 * len(shape):
            raise ValueError(f"pad_type 'custom' was found with the pad {pad}, expected {2 * len(shape)} numbers")
        return pad[::2], pad[1::2]
    if pad_type == "valid":
        return (0,) * len(shape), (0,) * len(shape)
    if pad_type not in _SAME:
        raise ValueError(f"the pad_type '{pad_type}' is unknown; known are: valid, custom, {', '.join(_SAME)}")
    total = [max(0, (-(-n // s) - 1) * s + r - n) for n, r, s in zip(shape, reach, strides, strict=True)]
    less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (less, more) if pad_type == "same" else (more, less)
