"""The constants that a program holds: in the specification itself, or in the package's weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.errors import PackError
from .elements import Array, TensorType, tensor_type, unpacked
from .weights import Weights

__all__ = ["Constant", "FindWeights", "read_value"]

# A string is one of a fixed set of words that chooses what an op does.
Constant = Array | str
FindWeights = Callable[[str], Weights]


def read_value(value: Any, find: FindWeights, where: str) -> Constant:
    """The array or string of a Value message, as it is stored; `find` gives the weights of a file that it names.

    Raises PackError, which begins with `where`, for a value that is none or does not fill its type.
    """
    try:
        return _read(value, find, where)
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        raise PackError(f"{where}: a damaged constant was found ({error}); copy the package again") from error


def _read(value: Any, find: FindWeights, where: str) -> Constant:
    declared = tensor_type(value.type, where)
    if declared.shape is None or None in declared.shape:
        raise PackError(f"{where}: a constant of the type {declared} was found; its sizes must be known")
    shape = tuple(size for size in declared.shape if size is not None)
    count = math.prod(shape)
    if value.HasField("blobFileValue"):
        source = value.blobFileValue
        return find(source.fileName).read(source.offset, declared.element, count).reshape(shape)
    elements = _immediate(value.immediateValue.tensor, declared, count, where)
    if len(elements) != count:
        raise PackError(
            f"{where}: {len(elements)} elements were found, the type is {declared}; export the package again"
        )
    return str(elements[0]) if declared.element.name == "string" and not shape else elements.reshape(shape)


def _immediate(tensor: Any, declared: TensorType, count: int, where: str) -> Array:
    """What stands in the specification; numbers of 8 and 16 bits and less stand there as bytes."""
    element = declared.element
    if tensor.HasField("bytes"):
        stored = tensor.bytes.values
        if len(stored) != math.ceil(element.bits * count / 8):
            raise PackError(
                f"{where}: {len(stored)} bytes were found, the type is {declared}; export the package again"
            )
        if element.bits < 8:
            return unpacked(stored, count, element.bits, signed=element.dtype is np.int8)
        return np.frombuffer(stored, element.dtype)
    for field in ("floats", "ints", "bools", "strings", "longInts", "doubles"):
        if tensor.HasField(field):
            return _exact(np.array(getattr(tensor, field).values), element.dtype)
    raise PackError(f"{where}: a constant without a value was found, of the type {declared}; export the package again")


def _exact(numbers: Array, dtype: Any) -> Array:
    """The numbers in a type; ValueError for whole ones that it does not have."""
    given = numbers.astype(dtype)
    if numbers.dtype.kind in "iu" and not np.array_equal(given.astype(numbers.dtype), numbers):
        raise ValueError(f"{numbers[given.astype(numbers.dtype) != numbers][0]} is no {np.dtype(dtype)}")
    return given
