"""The table of messages is the one that coremltools was made with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pocketprior.runtimes.mil.schema import MESSAGES, Model

NAMES = {  # ours -> theirs, for messages that lie inside others
    "EnumeratedShapes": "ArrayFeatureType.EnumeratedShapes",
    "Shape": "ArrayFeatureType.Shape",
    "ShapeRange": "ArrayFeatureType.ShapeRange",
    "EnumeratedImageSizes": "ImageFeatureType.EnumeratedImageSizes",
    "ImageSize": "ImageFeatureType.ImageSize",
    "ImageSizeRange": "ImageFeatureType.ImageSizeRange",
    "Binding": "MILSpec.Argument.Binding",
    "ConstantDimension": "MILSpec.Dimension.ConstantDimension",
    "UnknownDimension": "MILSpec.Dimension.UnknownDimension",
    "ImmediateValue": "MILSpec.Value.ImmediateValue",
    "BlobFileValue": "MILSpec.Value.BlobFileValue",
    **{
        name: f"MILSpec.TensorValue.Repeated{name}"
        for name in ("Floats", "Ints", "Bools", "Strings", "LongInts", "Doubles", "Bytes")
    },
}


@pytest.fixture(scope="module")
def theirs(tools: SimpleNamespace) -> Any:
    """theirs(message): its descriptor in coremltools."""
    pool = tools.ct.proto.Model_pb2.DESCRIPTOR.pool

    def find(message: str) -> Any:
        for prefix in ("", "MILSpec."):
            try:
                return pool.FindMessageTypeByName(f"CoreML.Specification.{prefix}{NAMES.get(message, message)}")
            except KeyError:
                continue
        raise AssertionError(f"coremltools has no message {message}")

    return find


@pytest.mark.parametrize("message", MESSAGES)
def test_fields(message: str, theirs: Any) -> None:
    fields = theirs(message).fields_by_name
    for name, (number, kind) in MESSAGES[message].items():
        field = fields[name]
        assert field.number == number
        assert field.is_repeated == kind.endswith(("*", "{}"))
        entry = field.message_type.fields_by_name["value"] if kind.endswith("{}") else field
        assert described(entry) == kind.rstrip("*{}")


def described(field: Any) -> str:
    """The type of a field as the table names it."""
    if field.message_type is not None:
        name = field.message_type.full_name.removeprefix("CoreML.Specification.")
        return next((ours for ours, path in NAMES.items() if path == name), name.removeprefix("MILSpec."))
    if field.enum_type is not None:
        return "int32"
    kinds = {kind: name for name, kind in vars(type(field)).items() if name.startswith("TYPE_")}
    return kinds[field.type].removeprefix("TYPE_").lower()


def test_what_is_not_in_the_table_is_kept() -> None:
    """A field of a later version comes back as it was."""
    model = Model(specificationVersion=9)
    later = model.SerializeToString() + b"\xf2\x3e\x03abc"  # field 1006, three bytes
    assert Model.FromString(later).SerializeToString() == later
