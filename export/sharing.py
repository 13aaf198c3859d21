"""Graph files of several tasks with one file of weights: what is equal is stored once.

The graphs stay as they are; only where their large constants lie is changed. The same graphs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

import onnx
from onnx import TensorProto

from ..core.pack.store import SHARED
from .coreml.package import FUNCTIONS, Package, blob_places, raise_version

__all__ = ["Store", "joined_packages", "shared_ir", "shared_onnx"]

ALIGNMENT = 64  # bytes: what vector instructions load at once
LEAST = 128  # bytes: where to find a constant takes about half as many
METADATA = "rt_info"


class Store:
    """Constants, one after the other."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.places: dict[bytes, int] = {}

    def place(self, constant: bytes) -> int:
        """The offset of a constant, which is added unless it is there."""
        if constant not in self.places:
            self.data += bytes(-len(self.data) % ALIGNMENT)
            self.places[constant] = len(self.data)
            self.data += constant
        return self.places[constant]


def shared_onnx(model: onnx.ModelProto, store: Store, file: str = SHARED["onnx"]) -> onnx.ModelProto:
    """The graph with its large constants in `store`, which is to be written to `file` beside it."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if len(tensor.raw_data) >= LEAST:
            facts = {"location": file, "offset": store.place(tensor.raw_data), "length": len(tensor.raw_data)}
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in facts.items():
                tensor.external_data.add(key=key, value=str(value))
    return result


def shared_ir(xml: str, weights: bytes, store: Store) -> ElementTree.Element:
    """The IR with its constants in `store`, without what it says twice.

    An input of an operation has the type and the size of the output that it is joined to: OpenVINO infers both.
    """
    root = ElementTree.fromstring(xml)
    for data in root.iterfind("layers/layer[@type='Const']/data"):
        start, size = int(data.attrib["offset"]), int(data.attrib["size"])
        data.attrib["offset"] = str(store.place(weights[start : start + size]))
    for port in root.iterfind("layers/layer/input/port"):
        port.attrib.pop("precision", None)
        for size in list(port):
            port.remove(size)
    for element in root.iter():
        element.text = (element.text or "").strip()  # what is left of indentation is sizes
        element.tail = None
    return root


def joined_packages(packages: Mapping[str, Package], metadata: Mapping[str, str]) -> Package:
    """One package, whose functions are those that are called "main" in the packages; the first is its default."""
    first, *_ = packages.values()
    result = Package(type(first.spec)())
    spec = result.spec
    spec.specificationVersion = max(FUNCTIONS, *(package.spec.specificationVersion for package in packages.values()))
    spec.mlProgram.version = first.spec.mlProgram.version
    spec.description.defaultFunctionName = next(iter(packages))
    for key in sorted(metadata):
        spec.description.metadata.userDefined[key] = metadata[key]
    for name, package in packages.items():
        one = package.copy()
        raise_version(one.spec, spec.specificationVersion)
        for value in blob_places(one.spec):
            value.offset += len(result.blobs)
        result.blobs += one.blobs
        spec.mlProgram.functions[name].CopyFrom(one.spec.mlProgram.functions["main"])
        described = spec.description.functions.add(name=name)
        described.input.extend(one.spec.description.input)
        described.output.extend(one.spec.description.output)
    return result
