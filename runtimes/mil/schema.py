"""The messages of a Core ML specification that a program needs, as a table, and the classes made from it.

Core ML's own Python package has these classes too, but importing it loads PyTorch. The parser skips fields that are not
in the table, as protobuf does.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["MESSAGES", "Model"]

_PACKAGE = "pocketprior.mil"

# Message: field=number:type ... A type with * is repeated, one with {} is a map from strings; enumerations are read as
# numbers.
_TABLE = """
Model: specificationVersion=1:int32 description=2:ModelDescription mlProgram=502:Program
ModelDescription: input=1:FeatureDescription* output=10:FeatureDescription* functions=20:FunctionDescription*
    defaultFunctionName=21:string metadata=100:Metadata
FunctionDescription: name=1:string input=2:FeatureDescription* output=3:FeatureDescription*
Metadata: userDefined=100:string{}
FeatureDescription: name=1:string type=3:FeatureType
FeatureType: imageType=4:ImageFeatureType multiArrayType=5:ArrayFeatureType isOptional=1000:bool
ArrayFeatureType: shape=1:int64* dataType=2:int32 enumeratedShapes=21:EnumeratedShapes shapeRange=31:ShapeRange
EnumeratedShapes: shapes=1:Shape*
Shape: shape=1:int64*
ShapeRange: sizeRanges=1:SizeRange*
SizeRange: lowerBound=1:uint64 upperBound=2:int64
ImageFeatureType: width=1:int64 height=2:int64 colorSpace=3:int32 enumeratedSizes=21:EnumeratedImageSizes
    imageSizeRange=31:ImageSizeRange
EnumeratedImageSizes: sizes=1:ImageSize*
ImageSize: width=1:uint64 height=2:uint64
ImageSizeRange: widthRange=1:SizeRange heightRange=2:SizeRange
Program: functions=2:Function{}
Function: inputs=1:NamedValueType* opset=2:string block_specializations=3:Block{}
Block: inputs=1:NamedValueType* outputs=2:string* operations=3:Operation*
Operation: type=1:string inputs=2:Argument{} outputs=3:NamedValueType* blocks=4:Block* attributes=5:Value{}
Argument: arguments=1:Binding*
Binding: name=1:string value=2:Value
NamedValueType: name=1:string type=2:ValueType
ValueType: tensorType=1:TensorType
TensorType: dataType=1:int32 rank=2:int64 dimensions=3:Dimension*
Dimension: constant=1:ConstantDimension unknown=2:UnknownDimension
ConstantDimension: size=1:uint64
UnknownDimension: variadic=1:bool
Value: type=2:ValueType immediateValue=3:ImmediateValue blobFileValue=5:BlobFileValue
ImmediateValue: tensor=1:TensorValue
BlobFileValue: fileName=1:string offset=2:uint64
TensorValue: floats=1:Floats ints=2:Ints bools=3:Bools strings=4:Strings longInts=5:LongInts doubles=6:Doubles
    bytes=7:Bytes
Floats: values=1:float*
Ints: values=1:int32*
Bools: values=1:bool*
Strings: values=1:string*
LongInts: values=1:int64*
Doubles: values=1:double*
Bytes: values=1:bytes
"""


# Message -> field -> (number, type).
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    name: {field: (int(number), kind) for field, number, kind in re.findall(r"(\w+)=(\d+):(\S+)", fields)}
    for name, fields in re.findall(r"(\w+):((?:\s+\w+=\S+)+)", _TABLE)
}


def _model() -> Any:
    """The class of the message Model, in a pool of its own: Core ML's package may be loaded in the same process."""
    file = descriptor_pb2.FileDescriptorProto(name="mil.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    described = message.field.add(name=name, number=number)
    described.label = described.LABEL_REPEATED if kind.endswith(("*", "{}")) else described.LABEL_OPTIONAL
    kind, is_map = kind.removesuffix("*").removesuffix("{}"), kind.endswith("{}")
    if not is_map and kind not in MESSAGES:
        described.type = getattr(described, f"TYPE_{kind.upper()}")
        return
    described.type, described.type_name = described.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    if is_map:
        entry = message.nested_type.add(name=f"{name.replace('_', ' ').title().replace(' ', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, kind)
        described.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"


Model: Any = _model()
