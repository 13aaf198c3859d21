"""What the elements of a tensor are, and the types that a program declares for its values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...core.errors import PackError

__all__ = ["Array", "Element", "TensorType", "tensor_type", "unpacked"]

Array = NDArray[Any]


class Element(NamedTuple):
    """dtype: what NumPy holds it in. bits: of one element as it is stored. blob: its number in a file of weights."""

    name: str
    dtype: DTypeLike
    bits: int
    blob: int | None = None


ELEMENTS = {  # number in a specification -> element
    1: Element("bool", np.bool_, 8),
    2: Element("string", np.str_, 0),
    10: Element("float16", np.float16, 16, 1),
    11: Element("float32", np.float32, 32, 2),
    12: Element("float64", np.float64, 64),
    21: Element("int8", np.int8, 8, 4),
    22: Element("int16", np.int16, 16, 6),
    23: Element("int32", np.int32, 32, 14),
    24: Element("int64", np.int64, 64),
    25: Element("int4", np.int8, 4, 8),
    31: Element("uint8", np.uint8, 8, 3),
    32: Element("uint16", np.uint16, 16, 7),
    33: Element("uint32", np.uint32, 32, 15),
    34: Element("uint64", np.uint64, 64),
    35: Element("uint4", np.uint8, 4, 11),
    36: Element("uint2", np.uint8, 2, 10),
    37: Element("uint1", np.uint8, 1, 9),
    38: Element("uint6", np.uint8, 6, 13),
    39: Element("uint3", np.uint8, 3, 12),
}


class TensorType(NamedTuple):
    """shape: None where the program leaves a size, or all of them, open."""

    element: Element
    shape: tuple[int | None, ...] | None

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
    """The type in a ValueType message; PackError for one that is no tensor, or of elements not known here."""
    if not declared.HasField("tensorType"):
        raise PackError(
            f"{where}: a type that is no tensor (a list, state, dictionary) was found; tensors are evaluated"
        )
    tensor = declared.tensorType
    if tensor.dataType not in ELEMENTS:
        known = ", ".join(element.name for element in ELEMENTS.values())
        raise PackError(f"{where}: elements of type number {tensor.dataType} were found; known are: {known}")
    if any(size.unknown.variadic for size in tensor.dimensions):
        return TensorType(ELEMENTS[tensor.dataType], None)
    sizes = (int(size.constant.size) if size.HasField("constant") else None for size in tensor.dimensions)
    return TensorType(ELEMENTS[tensor.dataType], tuple(sizes))


def unpacked(stored: bytes | Array, count: int, bits: int, signed: bool = False) -> Array:
    """`count` numbers of `bits` bits that follow each other without gaps, each from its least significant bit on."""
    packed = np.frombuffer(stored, np.uint8)
    if len(packed) != -(-count * bits // 8):
        raise ValueError(f"{len(packed)} bytes were found for {count} numbers of {bits} bits")
    flags = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    numbers = np.packbits(flags, axis=1, bitorder="little")[:, 0]
    if not signed:
        return numbers
    spare = 8 - bits
    return (numbers << spare).astype(np.int8) >> spare
