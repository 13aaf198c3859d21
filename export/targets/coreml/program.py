"""Operations of a MIL program: made, found and renamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from numpy.typing import NDArray

from .package import CoremlPackage, coremltools

__all__ = ["bindings", "constant", "is_constant", "operation", "tensor_type", "used", "value_name"]


def operation(kind: str, name: str, type_: Any, inputs: Mapping[str, str]) -> Any:
    """An operation with one output of that name and type; inputs: parameter -> value."""
    made = coremltools().proto.MIL_pb2.Operation()
    made.type = kind
    made.attributes["name"].CopyFrom(_text(name))
    for parameter, value in inputs.items():
        made.inputs[parameter].arguments.add().name = value
    output = made.outputs.add()
    output.name = name
    output.type.CopyFrom(type_)
    return made


def constant(package: CoremlPackage, name: str, array: NDArray[Any] | str) -> Any:
    """A constant of that name."""
    value = package.value(array)
    made = operation("const", name, value.type, {})
    made.attributes["val"].CopyFrom(value)
    return made


def bindings(op: Any) -> Iterator[tuple[str, Any]]:
    """Every named input of an operation: the parameter, and the binding, which can be renamed."""
    for parameter in sorted(op.inputs):
        for binding in op.inputs[parameter].arguments:
            if binding.WhichOneof("binding") == "name":
                yield parameter, binding


def is_constant(op: Any) -> bool:
    """Whether the operation is known when the program is loaded."""
    return op.type == "const" or op.type.startswith("constexpr_")


def value_name(op: Any, parameter: str) -> str:
    """The name of a parameter's single value; '' where it has none, or a literal one."""
    if parameter not in op.inputs or not op.inputs[parameter].arguments:
        return ""
    binding = op.inputs[parameter].arguments[0]
    return str(binding.name) if binding.WhichOneof("binding") == "name" else ""


def tensor_type(code: int, shape: Sequence[int]) -> Any:
    """The type of arrays of MIL's DataType `code` and this shape."""
    made = coremltools().proto.MIL_pb2.ValueType()
    made.tensorType.dataType, made.tensorType.rank = code, len(shape)
    for size in shape:
        made.tensorType.dimensions.add().constant.size = size
    return made


def used(operations: Sequence[Any], results: Set[str]) -> list[Any]:
    """Copies of the operations that lead to the outputs `results` of their block, in the same order."""
    needed, kept = set(results), list[Any]()
    for op in reversed(operations):
        if needed & {output.name for output in op.outputs}:
            needed |= {binding.name for _, binding in bindings(op)}
            copy = type(op)()
            copy.CopyFrom(op)
            kept.append(copy)
    return kept[::-1]


def _text(text: str) -> Any:
    value = coremltools().proto.MIL_pb2.Value()
    value.type.tensorType.dataType = 2
    value.immediateValue.tensor.strings.values.append(text)
    return value
