"""Arithmetic in float16: a float32 program with float16 between its inputs and its outputs.

What float16 cannot hold stays in float32: angles, of which sine and cosine are taken, and sums over a whole image.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from ....core.errors import UsageError
from . import coreml_package as mil
from .coreml_package import CoremlPackage

__all__ = ["in_fp16"]

_ANGLES = ("cos", "sin")
_KEPT = ("cast", "reduce_l2_norm")  # casts that the model itself asks for; sums of squares over an image
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
_NAMES = {mil.FLOAT16: "fp16", mil.FLOAT32: "fp32"}


def in_fp16(package: CoremlPackage) -> CoremlPackage:
    """The package in float16; inputs, outputs and what float16 cannot hold stay in float32.

    Raises UsageError for a constant that float16 cannot hold.
    """
    result = package.copy()
    for function, block in mil.functions(result.spec):
        _Fp16Block(result, block, {value.name: value.type for value in function.inputs}).rewrite()
    return result


class _Fp16Block:
    """A block that is being rewritten: the operations so far, and the type that each value has."""

    def __init__(self, package: CoremlPackage, block: Any, inputs: dict[str, Any]) -> None:
        self.package, self.block = package, block
        self.made: list[Any] = []
        self.constants = {op.outputs[0].name: op for op in block.operations if mil.is_constant(op)}
        self.types = {op.outputs[0].name: op.outputs[0].type.tensorType.dataType for op in self.constants.values()}
        self.types |= dict.fromkeys(inputs, mil.FLOAT32)
        self.described = dict(inputs)
        self.versions: set[str] = set()

    def rewrite(self) -> None:
        before, results = list(self.block.operations), set(self.block.outputs)
        exact = _exact(before)
        for index, op in enumerate(before):
            if mil.is_constant(op):
                continue
            self.take(op, mil.FLOAT32 if index in exact else mil.FLOAT16)
            self.made.append(op)
            for output in op.outputs:
                if output.name in results and output.type.tensorType.dataType == mil.FLOAT16:
                    self.give_back(output)
        mil.replace_operations(self.block, mil.used(self.made, results))

    def take(self, op: Any, code: int) -> None:
        for binding in mil.bindings(op):
            binding.name = self.version(binding.name, code)
        for output in op.outputs:
            if output.type.tensorType.dataType == mil.FLOAT32:
                output.type.tensorType.dataType = code
            self.types[output.name] = output.type.tensorType.dataType
            self.described[output.name] = output.type

    def version(self, name: str, code: int) -> str:
        """The name of a float value in that type; made where it is not there yet."""
        own = self.types.get(name)
        if own not in (mil.FLOAT16, mil.FLOAT32) or own == code:
            if name in self.constants and name not in self.versions:
                self.versions.add(name)
                self.add_constant(self.constants[name])
            return name
        other = f"{name}__{_NAMES[code]}"
        if other not in self.versions:
            self.versions.add(other)
            if name in self.constants:
                self.add_constant(self.fp16_constant(self.constants[name], other))
            else:
                self.cast(name, other, code)
        return other

    def add_constant(self, op: Any) -> None:
        own = op.outputs[0].type.tensorType.dataType
        for binding in mil.bindings(op):
            if binding.name in self.constants:
                binding.name = self.version(binding.name, mil.FLOAT16 if own == mil.FLOAT16 else mil.FLOAT32)
        self.made.append(op)

    def fp16_constant(self, op: Any, name: str) -> Any:
        """A constant, or what a compressed one is made of, in float16."""
        copy = deepcopy(op)
        copy.outputs[0].name = name
        copy.outputs[0].type.tensorType.dataType = mil.FLOAT16
        copy.attributes["name"].immediateValue.tensor.strings.values[0] = name
        for key in sorted(copy.attributes):
            value = copy.attributes[key]
            if value.type.tensorType.dataType == mil.FLOAT32:
                value.CopyFrom(self.package.value(_as_fp16(self.package.array(value), op.outputs[0].name)))
        return copy

    def cast(self, name: str, other: str, code: int) -> None:
        type_ = deepcopy(self.described[name])
        type_.tensorType.dataType = code
        self.made.append(mil.constant(f"{other}__dtype", self.package.value(_NAMES[code])))
        self.made.append(mil.operation("cast", other, type_, {"x": name, "dtype": f"{other}__dtype"}))

    def give_back(self, output: Any) -> None:
        """A result of the program stays float32: the operation computes another value, which is cast."""
        name = output.name
        output.name = f"{name}__fp16"
        self.types[output.name], self.described[output.name] = mil.FLOAT16, output.type
        self.cast(output.name, name, mil.FLOAT32)
        self.types[name], self.described[name] = mil.FLOAT32, self.made[-1].outputs[0].type
        self.versions |= {output.name}


def _exact(operations: list[Any]) -> set[int]:
    """The indices of operations that stay in float32, all that lead to an angle included."""
    makers = {output.name: i for i, op in enumerate(operations) for output in op.outputs}
    exact = {i for i, op in enumerate(operations) if op.type in (*_ANGLES, *_KEPT)}
    waiting = [i for i in exact if operations[i].type in _ANGLES]
    while waiting:
        for binding in mil.bindings(operations[waiting.pop()]):
            place = makers.get(binding.name)
            if place is not None and place not in exact:
                exact.add(place)
                waiting.append(place)
    return exact


def _as_fp16(array: Any, name: str) -> Any:
    """The constant in float16; what is not zero stays so, and a bound that is none becomes the largest number."""
    array = np.where(np.abs(array) >= np.finfo(np.float32).max, np.copysign(np.float32(_LARGEST), array), array)
    if np.abs(array).max(initial=0.0) > _LARGEST:
        raise UsageError(f"the constant '{name}' exceeds {_LARGEST:g}, the largest float16; export this model in fp32")
    lost = (array != 0) & (np.abs(array) < _SMALLEST)
    return np.where(lost, np.copysign(_SMALLEST, array), array).astype(np.float16)
