"""The inputs and outputs of a function of a package, as its description shows them to the users of Core ML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import GraphError, PackError
from .values import MilArray, TensorType

__all__ = ["Feature", "Sizes", "read_feature"]

_DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131080: "int8", 131104: "int32"}
_CHANNELS = {10: ("gray", 1), 20: ("rgb", 3), 30: ("bgr", 3), 40: ("gray", 1)}  # number -> order, how many
_IMAGE = "float32"


class Sizes(NamedTuple):
    """The sizes that one dimension may have."""

    lowest: int
    highest: int | None  # None for no limit

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and self.lowest <= size and (self.highest is None or size <= self.highest)

    def __str__(self) -> str:
        if self.lowest == self.highest:
            return str(self.lowest)
        return f"{self.lowest}..{'' if self.highest is None else self.highest}"


@dataclass(frozen=True)
class Feature:
    """An input or an output.

    An image is passed as float32 (1, channels, height, width) in 0..255; the program itself scales it.
    """

    name: str
    dtype: str
    shapes: tuple[tuple[Sizes, ...], ...]  # those that it may have, each as its sizes; empty where nothing is said
    colour: str | None = None  # of an image the order of its channels, "rgb", "bgr" or "gray"; None for an array

    def check(self, array: object, where: str) -> None:
        """Raise GraphError, which begins with `where`, unless `array` fits."""
        given = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        if not isinstance(array, np.ndarray) or array.dtype != self.dtype or not self._takes(array):
            raise GraphError(f"{where}, input '{self.name}': expected {self}, got {given}")

    def open_shape(self) -> tuple[int | str, ...]:
        """The size of each dimension, "?" where it may have several."""
        if not self.shapes:
            return ()
        return tuple(_common(sizes) for sizes in zip(*self.shapes, strict=True))

    def shaped(self, kind: TensorType) -> Feature:
        """The feature with the shape of a type, where it has none of its own."""
        if kind.shape is None:
            return self
        sizes = tuple(Sizes(0, None) if size is None else _only(size) for size in kind.shape)
        return replace(self, shapes=(sizes,))

    def _takes(self, array: MilArray) -> bool:
        if not self.shapes:
            return True
        return any(
            array.ndim == len(shape) and all(size in sizes for size, sizes in zip(array.shape, shape, strict=True))
            for shape in self.shapes
        )

    def __str__(self) -> str:
        shapes = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in self.shapes) or "of any shape"
        return f"{self.dtype} {shapes}" + (f", an image ({self.colour}) in 0..255" if self.colour else "")


def read_feature(description: Any, where: str) -> Feature:
    """The feature in a FeatureDescription message; PackError for one that is neither array nor image."""
    kind, name = description.type, description.name
    if kind.isOptional:
        raise PackError(f"{where}: '{name}' is optional, which the MIL interpreter does not support; make it required")
    if kind.HasField("imageType"):
        return _image(name, kind.imageType, where)
    if not kind.HasField("multiArrayType") or kind.multiArrayType.dataType not in _DTYPES:
        raise PackError(f"{where}: '{name}' is neither an image nor an array of {', '.join(_DTYPES.values())}")
    shapes = _array_shapes(kind.multiArrayType)
    if len({len(shape) for shape in shapes}) > 1:
        raise PackError(
            f"{where}: the shapes of '{name}' differ in their number of dimensions; export the package again"
        )
    return Feature(name, _DTYPES[kind.multiArrayType.dataType], shapes)


def _image(name: str, image: Any, where: str) -> Feature:
    if image.colorSpace not in _CHANNELS:
        raise PackError(f"{where}: the image '{name}' has no known order of channels; expected RGB, BGR or grayscale")
    colour, channels = _CHANNELS[image.colorSpace]
    sizes = [(_only(image.height), _only(image.width))]
    if image.HasField("enumeratedSizes"):
        sizes = [(_only(size.height), _only(size.width)) for size in image.enumeratedSizes.sizes]
    elif image.HasField("imageSizeRange"):
        sizes = [(_range(image.imageSizeRange.heightRange), _range(image.imageSizeRange.widthRange))]
    return Feature(name, _IMAGE, tuple((_only(1), _only(channels), *size) for size in sizes), colour)


def _array_shapes(array: Any) -> tuple[tuple[Sizes, ...], ...]:
    if array.HasField("shapeRange"):
        return (tuple(_range(sizes) for sizes in array.shapeRange.sizeRanges),)
    shapes = [array.shape]
    if array.HasField("enumeratedShapes"):
        shapes = [shape.shape for shape in array.enumeratedShapes.shapes]
    return tuple(tuple(_only(size) for size in shape) for shape in shapes if len(shape))


def _only(size: int) -> Sizes:
    return Sizes(int(size), int(size))


def _range(sizes: Any) -> Sizes:
    return Sizes(int(sizes.lowerBound), None if sizes.upperBound < 0 else int(sizes.upperBound))


def _common(sizes: Sequence[Sizes]) -> int | str:
    """The one size that all of these are, "?" if there is none."""
    first = sizes[0]
    return first.lowest if all(other == first for other in sizes) and first.lowest == first.highest else "?"
