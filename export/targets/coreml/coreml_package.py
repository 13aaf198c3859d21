"""Core ML packages (`.mlpackage`): a program and its large constants, written with equal bytes for equal content.

A package is a folder: `Manifest.json` names its items, `model.mlmodel` is the specification as a protocol buffer, and
`weight.bin` holds the large constants, which the specification refers to by offset. A `CoremlPackage` refers to them by
their index in a list instead, so that a program can be rewritten without counting bytes.
"""

from __future__ import annotations

import json
import logging
import math
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import MissingExtraError, PackError
from ....core.pack.mlpackage import ALIGNMENT, ELEMENTS, HEADER, MODEL_PATH, RECORD, RECORD_MAGIC, WEIGHTS_VERSION

__all__ = [
    "FLOAT16",
    "FLOAT32",
    "FUNCTIONS",
    "INT4",
    "CoremlPackage",
    "blob_places",
    "blocks",
    "coremltools",
    "packed_bits",
    "raise_version",
    "write_package",
]

FLOAT16 = 10  # of MIL's DataType, as the next two
FLOAT32 = 11
INT4 = 25
FUNCTIONS = 9  # version of the specification from which a package may hold several functions: iOS 18
_NUMBERS = {np.dtype(ELEMENTS[n].dtype): n for n in (1, FLOAT16, FLOAT32, 21, 23, 31, 33)}  # of the types written here
_IMMEDIATE = 10  # values; what has fewer stands in the specification itself
_BESIDE = f"{MODEL_PATH}weights/weight.bin"
_DATA = "com.apple.CoreML"


def coremltools() -> Any:
    """The package coremltools, silenced while it is imported. Raises MissingExtraError where it is not installed."""
    # It warns about versions of torch and scikit-learn newer than it was tested with, and about macOS-only parts.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import coremltools
    except ModuleNotFoundError as error:
        raise MissingExtraError("coremltools", "coreml", "writing Core ML packages") from error
    finally:
        logging.disable(level)
    return coremltools


@dataclass
class CoremlPackage:
    """spec: the specification; the offset of a constant that is stored outside it is its place in `blobs`."""

    spec: Any
    blobs: list[bytes] = field(default_factory=list[bytes])

    @classmethod
    def of(cls, spec: Any, weights: Path) -> CoremlPackage:
        """From a specification whose offsets are those in the file `weights`; `spec` is changed.

        Raises PackError for a file that is damaged or belongs to another specification.
        """
        package = cls(spec)
        stored = weights.read_bytes() if weights.is_file() else b""
        places: dict[int, int] = {}
        for value in _stored_values(spec):
            offset = value.blobFileValue.offset
            if offset not in places:
                record = stored[offset : offset + RECORD.size].ljust(RECORD.size, b"\0")
                magic, _, size, start, _ = RECORD.unpack(record)
                if magic != RECORD_MAGIC:
                    raise PackError(
                        f"{weights} has no record at byte {offset}, where model.mlmodel refers to one; copy the whole "
                        "package again, or export it again"
                    )
                places[offset] = len(package.blobs)
                package.blobs.append(stored[start : start + size])
            value.blobFileValue.offset = places[offset]
        return package

    @classmethod
    def read(cls, folder: Path) -> CoremlPackage:
        """The package in `folder`, as `write` or coremltools wrote it."""
        spec = coremltools().proto.Model_pb2.Model()
        spec.ParseFromString((folder / "Data" / _DATA / "model.mlmodel").read_bytes())
        return cls.of(spec, folder / "Data" / _DATA / "weights" / "weight.bin")

    def copy(self) -> CoremlPackage:
        """Another package, equal to this one."""
        spec = type(self.spec)()
        spec.CopyFrom(self.spec)
        return CoremlPackage(spec, list(self.blobs))

    def array(self, value: Any) -> NDArray[Any]:
        """The constant as an array, of rank 0 for a number; a string as an array of str."""
        kind = value.type.tensorType
        shape = [dimension.constant.size for dimension in kind.dimensions]
        if value.WhichOneof("value") == "blobFileValue":
            return np.frombuffer(self.blobs[value.blobFileValue.offset], ELEMENTS[kind.dataType].dtype).reshape(shape)
        tensor = value.immediateValue.tensor
        held = tensor.WhichOneof("value")
        if held == "bytes":
            return np.frombuffer(tensor.bytes.values, ELEMENTS[kind.dataType].dtype).reshape(shape)
        values = list(getattr(tensor, held).values) if held else []
        return np.array(values, ELEMENTS[kind.dataType].dtype).reshape(shape)

    def value(self, array: NDArray[Any] | str) -> Any:
        """A constant for the specification; a large one is stored outside it."""
        made = coremltools().proto.MIL_pb2.Value()
        if isinstance(array, str):
            made.type.tensorType.dataType = 2
            made.immediateValue.tensor.strings.values.append(array)
            return made
        _describe(made.type.tensorType, _NUMBERS[array.dtype], array.shape)
        if array.size >= _IMMEDIATE and array.dtype not in (np.int32, np.uint32):
            made.blobFileValue.fileName = _BESIDE
            made.blobFileValue.offset = self.store(array.tobytes())
            return made
        tensor = made.immediateValue.tensor
        if array.dtype == np.float32:
            tensor.floats.values.extend(array.reshape(-1).tolist())
        elif array.dtype == np.int32:
            tensor.ints.values.extend(array.reshape(-1).tolist())
        elif array.dtype == np.bool_:
            tensor.bools.values.extend(array.reshape(-1).tolist())
        else:
            tensor.bytes.values = array.tobytes()
        return made

    def packed(self, q: NDArray[np.uint8], bits: int, kind: int, shape: tuple[int, ...]) -> Any:
        """A constant of numbers with fewer than 8 bits, of MIL's DataType `kind`."""
        made = coremltools().proto.MIL_pb2.Value()
        _describe(made.type.tensorType, kind, shape)
        made.blobFileValue.fileName = _BESIDE
        made.blobFileValue.offset = self.store(packed_bits(q, bits))
        return made

    def store(self, data: bytes) -> int:
        """The place of `data` among the blobs."""
        self.blobs.append(data)
        return len(self.blobs) - 1


def packed_bits(q: NDArray[np.uint8], bits: int) -> bytes:
    """Numbers of `bits` bits each, without gaps, the lowest bit first."""
    spread = (q.reshape(-1, 1) >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(spread.reshape(-1).astype(np.uint8), bitorder="little").tobytes()


def blocks(spec: Any) -> Iterator[Any]:
    """The block of each function, in the order of their names."""
    for name in sorted(spec.mlProgram.functions):
        function = spec.mlProgram.functions[name]
        yield function.block_specializations[function.opset]


def raise_version(spec: Any, version: int) -> None:
    """Ask for a version of the specification, with its set of operations, if it is newer: 7 is iOS 16, 9 iOS 18."""
    if spec.specificationVersion >= version:
        return
    spec.specificationVersion = version
    for function in spec.mlProgram.functions.values():
        old, function.opset = function.opset, f"CoreML{version - 1}"
        function.block_specializations[function.opset].CopyFrom(function.block_specializations[old])
        del function.block_specializations[old]


def blob_places(spec: Any) -> Iterator[Any]:
    """Where each constant that is stored outside the specification lies: values whose `offset` can be changed."""
    return (value.blobFileValue for value in _stored_values(spec))


def write_package(package: CoremlPackage, folder: Path) -> None:
    """Write the package to `folder`, which must not be there; equal constants are stored once.

    Only what is used is written: in the order in which it is used.
    """
    package = package.copy()
    spec = package.spec
    weights, places = bytearray(), dict[tuple[int, bytes], int]()
    for value in _stored_values(spec):
        kind, data = value.type.tensorType.dataType, package.blobs[value.blobFileValue.offset]
        if (kind, data) not in places:
            places[kind, data] = len(weights) + ALIGNMENT
            weights += _record(value.type.tensorType, data, places[kind, data])
        value.blobFileValue.offset = places[kind, data]
    place = folder / "Data" / _DATA
    place.mkdir(parents=True)
    (place / "model.mlmodel").write_bytes(spec.SerializeToString(deterministic=True))
    if places:
        (place / "weights").mkdir()
        header = HEADER.pack(len(places), WEIGHTS_VERSION)
        (place / "weights" / "weight.bin").write_bytes(header + bytes(weights))
    (folder / "Manifest.json").write_text(_manifest(bool(places)), encoding="utf-8")


def _record(kind: Any, data: bytes, offset: int) -> bytes:
    """64 bytes that say what follows, and the data, up to the next multiple of 64."""
    count = math.prod(dimension.constant.size for dimension in kind.dimensions)
    element = ELEMENTS[kind.dataType]
    unused = len(data) * 8 - count * element.bits if element.bits < 8 else 0
    head = RECORD.pack(RECORD_MAGIC, element.blob, len(data), offset + ALIGNMENT, unused)
    return head + data.ljust(-(-len(data) // ALIGNMENT) * ALIGNMENT, b"\0")


def _manifest(weights: bool) -> str:
    """Items have identifiers that follow from their names, where coremltools draws them."""
    items = {"model.mlmodel": "CoreML Model Specification"} | ({"weights": "CoreML Model Weights"} if weights else {})
    entries = {
        _identifier(name): {"author": _DATA, "description": text, "name": name, "path": f"{_DATA}/{name}"}
        for name, text in items.items()
    }
    content = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": _identifier("model.mlmodel"),
    }
    return json.dumps(content, indent=4, sort_keys=True) + "\n"


def _identifier(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pocketprior/{name}")).upper()


def _describe(kind: Any, code: int, shape: tuple[int, ...]) -> None:
    kind.dataType, kind.rank = code, len(shape)
    for size in shape:
        kind.dimensions.add().constant.size = size


def _stored_values(spec: Any) -> Iterator[Any]:
    """Every constant that is stored outside the specification, in the order of the program."""
    for block in blocks(spec):
        for operation in block.operations:
            for name in sorted(operation.attributes):
                if operation.attributes[name].WhichOneof("value") == "blobFileValue":
                    yield operation.attributes[name]
            for name in sorted(operation.inputs):
                for binding in operation.inputs[name].arguments:
                    if (
                        binding.WhichOneof("binding") == "value"
                        and binding.value.WhichOneof("value") == "blobFileValue"
                    ):
                        yield binding.value
