"""The values of a program: the types that it declares, and the constants that it or its file of weights holds."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import PackError
from ...core.pack.mlpackage import ELEMENTS, HEADER, RECORD, RECORD_MAGIC, WEIGHTS_VERSION, Element

__all__ = ["Constant", "FindWeights", "TensorType", "WeightFile", "read_value", "tensor_type", "unpacked"]

MilArray = NDArray[Any]
Constant = MilArray | str  # a string is one of a fixed set of words that chooses what an op does
FindWeights = Callable[[str], "WeightFile"]


class TensorType(NamedTuple):
    """The declared type of a value."""

    element: Element
    shape: tuple[int | None, ...] | None  # None where the program leaves a size, or all of them, open

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape is one of the type."""
        if self.shape is None:
            return True
        pairs = zip(shape, self.shape, strict=False)
        return len(shape) == len(self.shape) and all(wanted in (None, size) for size, wanted in pairs)

    def __str__(self) -> str:
        sizes = "..." if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.element.name} [{sizes}]"


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


def read_value(value: Any, find: FindWeights, where: str) -> Constant:
    """The array or string of a Value message, as it is stored.

    Args:
        value: The message.
        find: Returns the weights of a file that the message names.
        where: Begins the message of an error.

    Raises:
        PackError: There is no value, or it does not fill its type.
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


class WeightFile:
    """The records of one file of weights, which is read at the first request."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: bytes | None = None

    def read(self, offset: int, element: Element, count: int) -> MilArray:
        """The `count` elements of the record at `offset`, read-only.

        Raises:
            PackError: The file is missing, cut off or no file of weights, or the record is another one.
        """
        content = self._read()
        magic, blob, size, start, spare = self._part(RECORD, content, offset)
        where = f"{self._path}, byte {offset}"
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
        if start + size > len(content):
            raise self._truncated(start + size, len(content))
        return _elements(memoryview(content)[start : start + size], element, count)

    def _read(self) -> bytes:
        if self._content is None:
            try:
                content = self._path.read_bytes()
            except OSError as error:
                raise PackError(f"{self._path} cannot be read ({error}); copy the whole package again") from error
            _, version = self._part(HEADER, content, 0)
            if version != WEIGHTS_VERSION:
                raise PackError(f"{self._path}: expected weights of version {WEIGHTS_VERSION}, got version {version}")
            self._content = content
        return self._content

    def _part(self, layout: struct.Struct, content: bytes, offset: int) -> tuple[int, ...]:
        if offset + layout.size > len(content):
            raise self._truncated(offset + layout.size, len(content))
        return layout.unpack_from(content, offset)

    def _truncated(self, needed: int, given: int) -> PackError:
        return PackError(f"{self._path} is cut off: it has {given} bytes of {needed}; copy the package again")
