"""The weights of a package: a file of records, each 64 bytes that describe it and somewhere its data."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from ...core.errors import PackError
from .elements import Array, Element, unpacked

__all__ = ["Weights"]

VERSION = 2
MAGIC = 0xDEADBEEF
_HEADER = struct.Struct("<II56x")  # number of records, version
_RECORD = struct.Struct("<IIQQQ32x")  # magic, element, bytes, their offset, bits at the end that mean nothing


class Weights:
    """The records of one file, which is read when first asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: bytes | None = None

    def read(self, offset: int, element: Element, count: int) -> Array:
        """The `count` elements of the record at `offset`, not to be written to.

        Raises PackError for a file that is missing, cut off or no file of weights, and for another record than this.
        """
        content = self._read()
        magic, blob, size, start, spare = self._part(_RECORD, content, offset)
        if magic != MAGIC:
            raise PackError(f"{self._at(offset)}: {magic:#x} was found, a record of weights begins with {MAGIC:#x}")
        if blob != element.blob:
            raise PackError(
                f"{self._at(offset)}: elements of type number {blob} were found, the program expects {element.name}"
            )
        if 8 * size - spare != element.bits * count:
            raise PackError(
                f"{self._at(offset)}: {size} bytes without {spare} bits were found, the program expects {count} of "
                f"{element.bits} bits; copy the package again"
            )
        if start + size > len(content):
            raise self._truncated(start + size, len(content))
        data = memoryview(content)[start : start + size]
        if element.bits < 8:
            return unpacked(bytes(data), count, element.bits, signed=element.dtype is np.int8)
        return np.frombuffer(data, element.dtype)

    def _read(self) -> bytes:
        if self._content is None:
            try:
                content = self._path.read_bytes()
            except OSError as error:
                raise PackError(f"{self._path} cannot be read ({error}); copy the whole package again") from error
            _, version = self._part(_HEADER, content, 0)
            if version != VERSION:
                raise PackError(f"{self._path}: weights of version {version} were found, version {VERSION} is read")
            self._content = content
        return self._content

    def _part(self, layout: struct.Struct, content: bytes, offset: int) -> tuple[int, ...]:
        if offset + layout.size > len(content):
            raise self._truncated(offset + layout.size, len(content))
        return layout.unpack_from(content, offset)

    def _truncated(self, needed: int, given: int) -> PackError:
        return PackError(f"{self._path} is cut off: it has {given} bytes, {needed} are needed; copy the package again")

    def _at(self, offset: int) -> str:
        return f"{self._path}, byte {offset}"
