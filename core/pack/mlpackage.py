"""The format of Core ML packages, as far as their reader (`runtimes/mil`) and writer (`export/coreml`) share it.

A package holds its large constants in a file of weights: a header, then records, each of which is described by 64
bytes and followed by its data. The numbers are those of Core ML's specification and of coremltools' storage format.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["ELEMENTS", "Element"]

MODEL_PATH = "@model_path/"  # begins the name of a file of weights, relative to the folder of the specification
WEIGHTS_VERSION = 2
RECORD_MAGIC = 0xDEADBEEF
ALIGNMENT = 64  # bytes, of records and of their data
HEADER = struct.Struct("<II56x")  # number of records, version
RECORD = struct.Struct("<IIQQQ32x")  # magic, type, bytes of the data, their offset, unused bits at their end


class Element(NamedTuple):
    """The type of a tensor's elements."""

    name: str
    dtype: DTypeLike  # what NumPy holds it in
    bits: int  # of one element as it is stored
    blob: int | None = None  # its number in a file of weights


ELEMENTS = {  # number in a specification (MIL's DataType) -> element
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
