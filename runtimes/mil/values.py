"""The values of a program: the types that it declares, its inputs and outputs, and its constants."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import GraphError, PackError
from ...core.pack.mlpackage import ELEMENTS, HEADER, RECORD, RECORD_MAGIC, WEIGHTS_VERSION, Element

__all__ = ["Feature", "Sizes", "TensorType", "WeightFile", "read_feature", "read_value", "tensor_type", "unpacked"]

MilArray = NDArray[Any]
ArrayTuple = tuple[MilArray, ...]
Ints = tuple[int, ...]
Op = Callable[..., Any]
Constant = MilArray | str  # a string is one of a fixed set of words that chooses what an op does
FindWeights = Callable[[str], "WeightFile"]  # the weights of a file that a program names

_DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131080: "int8", 131104: "int32"}
_CHANNELS = {10: ("gray", 1), 20: ("rgb", 3), 30: ("bgr", 3), 40: ("gray", 1)}  # number -> order, how many


class TensorType(NamedTuple):
    """The declared type of a value."""

    element: Element
    shape: tuple[int | None, ...] | None  # None where the program leaves a size, or all of them, open

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape is one of the type."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(w in (None, n) for n, w in zip(shape, self.shape, strict=True))

    def __str__(self) -> str:
        sizes = "..." if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.element.name} [{sizes}]"


class Sizes(NamedTuple):
    """The sizes that one dimension may have."""

    lowest: int
    highest: int | None  # None for no limit

    @classmethod
    def only(cls, size: int) -> Sizes:
        """Just this one."""
        return cls(int(size), int(size))

    def allows(self, size: int) -> bool:
        """Whether `size` is one of them."""
        return self.lowest <= size and (self.highest is None or size <= self.highest)

    def __str__(self) -> str:
        if self.lowest == self.highest:
            return str(self.lowest)
        return f"{self.lowest}..{'' if self.highest is None else self.highest}"


@dataclass(frozen=True)
class Feature:
    """An input or an output of a function, as the description of its package shows it to the users of Core ML.

    An image is passed as float32 (1, channels, height, width) in 0..255; the program itself scales it.
    """

    name: str
    dtype: str
    shapes: tuple[tuple[Sizes, ...], ...]  # those that it may have, each as its sizes; empty where nothing is said
    colour: str | None = None  # of an image the order of its channels, "rgb", "bgr" or "gray"; None for an array

    def check(self, array: object, where: str) -> None:
        """Raise GraphError, which begins with `where`, unless `array` fits."""
        given = type(array).__name__
        if isinstance(array, np.ndarray):
            shape = array.shape
            fits = not self.shapes or any(
                len(shape) == len(sizes) and all(map(Sizes.allows, sizes, shape)) for sizes in self.shapes
            )
            if array.dtype == self.dtype and fits:
                return
            given = f"{array.dtype} {list(shape)}"
        raise GraphError(f"{where}, input '{self.name}': expected {self}, got {given}")

    def open_shape(self) -> tuple[int | str, ...]:
        """The size of each dimension, "?" where it may have several."""
        return tuple(
            sizes[0].lowest if {bound for size in sizes for bound in size} == {sizes[0].lowest} else "?"
            for sizes in zip(*self.shapes, strict=True)
        )

    def shaped(self, kind: TensorType) -> Feature:
        """The feature with the shape of a type, if that has one."""
        if kind.shape is None:
            return self
        return replace(self, shapes=(tuple(Sizes(0, None) if s is None else Sizes.only(s) for s in kind.shape),))

    def __str__(self) -> str:
        shapes = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in self.shapes) or "of any shape"
        return f"{self.dtype} {shapes}" + (f", an image ({self.colour}) in 0..255" if self.colour else "")


def tensor_type(declared: Any, where: str) -> TensorType:
    """The type in a ValueType message; PackError for one that is no tensor, or of unknown elements."""
    if not declared.HasField("tensorType"):
        raise PackError(f"{where}: expected a tensor, got another type (a list, state or dictionary)")
    tensor = declared.tensorType
    if tensor.dataType not in ELEMENTS:
        known = ", ".join(element.name for element in ELEMENTS.values())
        raise PackError(f"{where}: unknown elements of type number {tensor.dataType}; known are: {known}")
    if any(size.unknown.variadic for size in tensor.dimensions):
        return TensorType(ELEMENTS[tensor.dataType], None)
    sizes = (int(size.constant.size) if size.HasField("constant") else None for size in tensor.dimensions)
    return TensorType(ELEMENTS[tensor.dataType], tuple(sizes))


def read_feature(description: Any, where: str) -> Feature:
    """The feature in a FeatureDescription message; PackError for one that is neither array nor image."""
    kind, name = description.type, description.name
    if kind.isOptional:
        raise PackError(f"{where}: '{name}' is optional, which the MIL interpreter does not support; make it required")
    if kind.HasField("imageType"):
        return _image(name, kind.imageType, where)
    array = kind.multiArrayType
    if not kind.HasField("multiArrayType") or array.dataType not in _DTYPES:
        raise PackError(f"{where}: '{name}' is neither an image nor an array of {', '.join(_DTYPES.values())}")
    if array.HasField("shapeRange"):
        return Feature(name, _DTYPES[array.dataType], (tuple(map(_range, array.shapeRange.sizeRanges)),))
    several = array.HasField("enumeratedShapes")
    given = [one.shape for one in array.enumeratedShapes.shapes] if several else [array.shape]
    shapes = tuple(tuple(map(Sizes.only, shape)) for shape in given if len(shape))
    if len({len(shape) for shape in shapes}) > 1:
        raise PackError(
            f"{where}: the shapes of '{name}' differ in their number of dimensions; export the package again"
        )
    return Feature(name, _DTYPES[array.dataType], shapes)


def _image(name: str, image: Any, where: str) -> Feature:
    if image.colorSpace not in _CHANNELS:
        raise PackError(f"{where}: the image '{name}' has no known order of channels; expected RGB, BGR or grayscale")
    colour, channels = _CHANNELS[image.colorSpace]
    sizes = [(Sizes.only(image.height), Sizes.only(image.width))]
    if image.HasField("enumeratedSizes"):
        sizes = [(Sizes.only(size.height), Sizes.only(size.width)) for size in image.enumeratedSizes.sizes]
    elif image.HasField("imageSizeRange"):
        sizes = [(_range(image.imageSizeRange.heightRange), _range(image.imageSizeRange.widthRange))]
    return Feature(name, "float32", tuple((Sizes.only(1), Sizes.only(channels), *size) for size in sizes), colour)


def _range(sizes: Any) -> Sizes:
    return Sizes(int(sizes.lowerBound), None if sizes.upperBound < 0 else int(sizes.upperBound))


def read_value(value: Any, find: FindWeights, where: str) -> Constant:
    """The array or string of a Value message, as it is stored.

    Raises PackError, which begins with `where`, for a message without a value, or with one that does not fill its type.
    """
    try:
        return _read(value, find, where)
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        raise PackError(f"{where}: a constant is damaged ({error}); copy the package again") from error


def _read(value: Any, find: FindWeights, where: str) -> Constant:
    declared = tensor_type(value.type, where)
    if declared.shape is None or None in declared.shape:
        raise PackError(f"{where}: expected a constant of known sizes, got the type {declared}")
    shape = tuple(size for size in declared.shape if size is not None)
    count = math.prod(shape)
    if value.HasField("blobFileValue"):
        source = value.blobFileValue
        return find(source.fileName).read(source.offset, declared.element, count).reshape(shape)
    elements = _immediate(value.immediateValue.tensor, declared, count, where)
    if len(elements) != count:
        raise _unfilled(f"{len(elements)} elements", declared, where)
    return str(elements[0]) if declared.element.name == "string" and not shape else elements.reshape(shape)


def _immediate(tensor: Any, declared: TensorType, count: int, where: str) -> MilArray:
    """The value in the specification itself; numbers of 16 bits and less are stored there as bytes."""
    element = declared.element
    if tensor.HasField("bytes"):
        stored = tensor.bytes.values
        if len(stored) != math.ceil(element.bits * count / 8):
            raise _unfilled(f"{len(stored)} bytes", declared, where)
        return _elements(stored, element, count)
    for field in ("floats", "ints", "bools", "strings", "longInts", "doubles"):
        if tensor.HasField(field):
            return _exact(np.array(getattr(tensor, field).values), element.dtype)
    raise PackError(f"{where}: a constant of the type {declared} has no value; export the package again")


def _unfilled(given: str, declared: TensorType, where: str) -> PackError:
    return PackError(f"{where}: {given} do not fill the type {declared}; export the package again")


def _exact(numbers: MilArray, dtype: Any) -> MilArray:
    """The numbers in a type; ValueError for whole ones that it does not have."""
    given = numbers.astype(dtype)
    if numbers.dtype.kind in "iu" and not np.array_equal(given.astype(numbers.dtype), numbers):
        raise ValueError(f"{numbers[given.astype(numbers.dtype) != numbers][0]} is no {np.dtype(dtype)}")
    return given


def _elements(stored: bytes | memoryview, element: Element, count: int) -> MilArray:
    if element.bits < 8:
        return unpacked(bytes(stored), count, element.bits, signed=element.dtype is np.int8)
    return np.frombuffer(stored, element.dtype)


def unpacked(stored: bytes | MilArray, count: int, bits: int, signed: bool = False) -> MilArray:
    """`count` numbers of `bits` bits that follow each other without gaps, each from its least significant bit on."""
    packed = np.frombuffer(stored, np.uint8)
    if len(packed) != -(-count * bits // 8):
        raise ValueError(f"{len(packed)} bytes cannot hold {count} numbers of {bits} bits")
    flags = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    numbers = np.packbits(flags, axis=1, bitorder="little")[:, 0]
    if not signed:
        return numbers
    spare = 8 - bits
    return (numbers << spare).astype(np.int8) >> spare


@dataclass(frozen=True)
class WeightFile:
    """The records of one file of weights, which is read at the first request."""

    path: Path

    def read(self, offset: int, element: Element, count: int) -> MilArray:
        """The `count` elements of the record at `offset`, read-only.

        Raises PackError where the file is missing, cut off or no file of weights, or the record is another one.
        """
        magic, blob, size, start, spare = self._part(RECORD, self._content, offset)
        where = f"{self.path}, byte {offset}"
        if magic != RECORD_MAGIC:
            raise PackError(
                f"{where}: expected a record of weights, which begins with {RECORD_MAGIC:#x}, got {magic:#x}"
            )
        if blob != element.blob:
            raise PackError(f"{where}: the program expects {element.name}, got elements of type number {blob}")
        if 8 * size - spare != element.bits * count:
            raise PackError(
                f"{where}: the program expects {count} numbers of {element.bits} bits, got {8 * size - spare} bits; "
                "copy the package again"
            )
        self._reaches(start + size, self._content)
        return _elements(memoryview(self._content)[start : start + size], element, count)

    @cached_property
    def _content(self) -> bytes:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise PackError(f"{self.path} cannot be read ({error}); copy the whole package again") from error
        _, version = self._part(HEADER, content, 0)
        if version != WEIGHTS_VERSION:
            raise PackError(f"{self.path}: expected weights of version {WEIGHTS_VERSION}, got version {version}")
        return content

    def _part(self, layout: struct.Struct, content: bytes, offset: int) -> tuple[int, ...]:
        self._reaches(offset + layout.size, content)
        return layout.unpack_from(content, offset)

    def _reaches(self, end: int, content: bytes) -> None:
        if end > len(content):
            raise PackError(f"{self.path} is cut off: it has {len(content)} bytes of {end}; copy the package again")
