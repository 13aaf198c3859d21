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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import MissingExtraError, PackError
from ....core.pack.mlpackage import ALIGNMENT, ELEMENTS, HEADER, MODEL_PATH, RECORD, RECORD_MAGIC, WEIGHTS_VERSION

__all__ = [
    "CoremlPackage",
    "bindings",
    "constant",
    "coremltools",
    "functions",
    "is_constant",
    "operation",
    "packed_bits",
    "quiet",
    "raise_version",
    "replace_operations",
    "stored_values",
    "tensor_type",
    "used",
    "value_name",
    "write_package",
]

FLOAT16 = 10  # of MIL's DataType, as the next two
FLOAT32 = 11
INT4 = 25
FUNCTIONS = 9  # version of the specification from which a package may hold several functions: iOS 18
_STRING = 2
_NUMBERS = {np.dtype(ELEMENTS[n].dtype): n for n in (1, FLOAT16, FLOAT32, 21, 23, 31, 33)}  # of the types written here
_LISTS = {np.float32: "floats", np.int32: "ints", np.bool_: "bools"}  # what holds immediate values; others are bytes
_IMMEDIATE = 10  # values; what has fewer stands in the specification itself
_BESIDE = f"{MODEL_PATH}weights/weight.bin"
_DATA = "com.apple.CoreML"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of coremltools: of versions newer than it was tested with, and of what only macOS has."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)


def coremltools() -> Any:
    """The package coremltools. Raises MissingExtraError where it is not installed."""
    try:
        with quiet():
            import coremltools
    except ModuleNotFoundError as error:
        raise MissingExtraError("coremltools", "coreml", "writing Core ML packages") from error
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
        for value in stored_values(spec):
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
        return CoremlPackage(deepcopy(self.spec), list(self.blobs))

    def array(self, value: Any) -> NDArray[Any]:
        """The constant as an array, of rank 0 for a number; a string as an array of str."""
        kind, tensor = value.type.tensorType, value.immediateValue.tensor
        dtype, shape = ELEMENTS[kind.dataType].dtype, [dimension.constant.size for dimension in kind.dimensions]
        held = tensor.WhichOneof("value")
        if value.WhichOneof("value") == "blobFileValue":
            return np.frombuffer(self.blobs[value.blobFileValue.offset], dtype).reshape(shape)
        if held == "bytes":
            return np.frombuffer(tensor.bytes.values, dtype).reshape(shape)
        return np.array(list(getattr(tensor, held).values) if held else [], dtype).reshape(shape)

    def value(self, array: NDArray[Any] | str) -> Any:
        """A constant for the specification; a large one is stored outside it."""
        if isinstance(array, str):
            return _text(array)
        if array.size >= _IMMEDIATE and array.dtype not in (np.int32, np.uint32):
            return self.stored(array.tobytes(), _NUMBERS[array.dtype], array.shape)
        made = coremltools().proto.MIL_pb2.Value(type=tensor_type(_NUMBERS[array.dtype], array.shape))
        tensor = made.immediateValue.tensor
        if array.dtype.type in _LISTS:
            getattr(tensor, _LISTS[array.dtype.type]).values.extend(array.reshape(-1).tolist())
        else:
            tensor.bytes.values = array.tobytes()
        return made

    def stored(self, data: bytes, kind: int, shape: tuple[int, ...]) -> Any:
        """A constant that is stored outside the specification, of MIL's DataType `kind`."""
        made = coremltools().proto.MIL_pb2.Value(type=tensor_type(kind, shape))
        made.blobFileValue.fileName, made.blobFileValue.offset = _BESIDE, len(self.blobs)
        self.blobs.append(data)
        return made


def packed_bits(q: NDArray[np.uint8], bits: int) -> bytes:
    """Numbers of `bits` bits each, without gaps, the lowest bit first."""
    spread = (q.reshape(-1, 1) >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(spread.reshape(-1).astype(np.uint8), bitorder="little").tobytes()


def functions(spec: Any) -> Iterator[tuple[Any, Any]]:
    """Each function and its block, in the order of their names."""
    for name in sorted(spec.mlProgram.functions):
        function = spec.mlProgram.functions[name]
        yield function, function.block_specializations[function.opset]


def stored_values(spec: Any) -> Iterator[Any]:
    """Every constant that is stored outside the specification, in the order of the program."""
    for _, block in functions(spec):
        for op in block.operations:
            values = [op.attributes[name] for name in sorted(op.attributes)]
            for name in sorted(op.inputs):
                values += [b.value for b in op.inputs[name].arguments if b.WhichOneof("binding") == "value"]
            yield from (value for value in values if value.WhichOneof("value") == "blobFileValue")


def raise_version(spec: Any, version: int) -> None:
    """Ask for a version of the specification, with its set of operations, if it is newer: 7 is iOS 16, 9 iOS 18."""
    if spec.specificationVersion >= version:
        return
    spec.specificationVersion = version
    for function in spec.mlProgram.functions.values():
        old, function.opset = function.opset, f"CoreML{version - 1}"
        function.block_specializations[function.opset].CopyFrom(function.block_specializations[old])
        del function.block_specializations[old]


def write_package(package: CoremlPackage, folder: Path) -> None:
    """Write the package to `folder`, which must not be there; equal constants are stored once.

    Only what is used is written: in the order in which it is used.
    """
    package = package.copy()
    spec = package.spec
    weights, places = bytearray(), dict[tuple[int, bytes], int]()
    for value in stored_values(spec):
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
    root = _identifier("model.mlmodel")
    content = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": root}
    return json.dumps(content, indent=4, sort_keys=True) + "\n"


def _identifier(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pocketprior/{name}")).upper()


def tensor_type(code: int, shape: Sequence[int]) -> Any:
    """The type of arrays of MIL's DataType `code` and this shape."""
    made = coremltools().proto.MIL_pb2.ValueType()
    made.tensorType.dataType, made.tensorType.rank = code, len(shape)
    for size in shape:
        made.tensorType.dimensions.add().constant.size = size
    return made


def operation(kind: str, name: str, type_: Any, inputs: Mapping[str, str]) -> Any:
    """An operation with one output of that name and type; inputs: parameter -> value."""
    made = coremltools().proto.MIL_pb2.Operation(type=kind)
    made.attributes["name"].CopyFrom(_text(name))
    for parameter, value in inputs.items():
        made.inputs[parameter].arguments.add().name = value
    made.outputs.add(name=name, type=type_)
    return made


def constant(name: str, value: Any) -> Any:
    """A constant of that name, whose value `CoremlPackage.value` or `stored` made."""
    made = operation("const", name, value.type, {})
    made.attributes["val"].CopyFrom(value)
    return made


def bindings(op: Any) -> Iterator[Any]:
    """Every named input of an operation: its binding, which can be renamed."""
    for parameter in sorted(op.inputs):
        yield from (b for b in op.inputs[parameter].arguments if b.WhichOneof("binding") == "name")


def is_constant(op: Any) -> bool:
    """Whether the operation is known when the program is loaded."""
    return op.type == "const" or op.type.startswith("constexpr_")


def value_name(op: Any, parameter: str) -> str:
    """The name of a parameter's single value; '' where it has none, or a literal one."""
    if parameter not in op.inputs or not op.inputs[parameter].arguments:
        return ""
    binding = op.inputs[parameter].arguments[0]
    return str(binding.name) if binding.WhichOneof("binding") == "name" else ""


def used(operations: Sequence[Any], results: Iterable[str]) -> list[Any]:
    """The operations that lead to the outputs `results` of their block, in the same order."""
    needed, kept = set(results), list[Any]()
    for op in reversed(operations):
        if needed & {output.name for output in op.outputs}:
            needed |= {binding.name for binding in bindings(op)}
            kept.append(op)
    return kept[::-1]


def replace_operations(block: Any, operations: Iterable[Any]) -> None:
    """Put these in the place of a block's operations, of which they may be some."""
    copies = [deepcopy(op) for op in operations]
    del block.operations[:]
    block.operations.extend(copies)


def _text(text: str) -> Any:
    value = coremltools().proto.MIL_pb2.Value()
    value.type.tensorType.dataType = _STRING
    value.immediateValue.tensor.strings.values.append(text)
    return value
