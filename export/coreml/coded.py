"""A plan as a Core ML package: weights in fewer bits, and integers where the plan has them.

Compressed weights are the format's own: Core ML decodes them when it loads a package, or while it runs. The numbers
are those of the ONNX graphs of the same plan: codes, scales, ranges of arrays, and biases that take back what coding
adds to the mean of a channel. int8 rounds what goes into a convolution and what comes out of it to 8 bits (iOS 17),
which processors with integer arithmetic fuse with the convolution. Palettes, which Core ML alone has, give each weight
the number of one of a few values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UsageError
from ..quantization.layers import array_digest
from ..quantization.levels import bias_shift, coded, decoded
from ..quantization.ranges import Range, unit_of
from .package import FLOAT32, INT4, Package, blocks, packed_bits, raise_version
from .palette import PALETTES, palette
from .program import bindings, constant, operation, tensor_type, used, value_name

__all__ = ["NEEDS", "Ends", "emit"]

NEEDS = {"int8": 8, "w4": 9}  # version of the specification: 8 came with iOS 17, 9 with iOS 18
LAYERS = ("conv", "linear")
UINT8 = 31  # of MIL's DataType
UNSIGNED = {4: 35, 6: 38, 8: UINT8}


class Ends(NamedTuple):
    """What the arrays before a convolution and after it hold."""

    before: Range
    after: Range


def emit(package: Package, levels: Mapping[str, str], uses: Mapping[str, Sequence[Ends]]) -> Package:
    """The float32 package with its layers at `levels`, by the digest of their weights.

    uses: digest -> the convolutions with these weights, in the order in which they are computed. The package asks for
    the first version of Core ML that has its levels. Raises UsageError for a layer that the package does not have.
    """
    result = package.copy()
    raise_version(result.spec, max((NEEDS.get(level, 0) for level in levels.values()), default=0))
    found: set[str] = set()
    for block in blocks(result.spec):
        draft = _Draft(result, block, uses)
        found |= draft.layers.keys() & levels.keys()
        for digest in sorted(draft.layers.keys() & levels.keys()):
            draft.encode(digest, levels[digest])
        draft.finish()
    missing = set(levels) - found
    if missing:
        raise UsageError(
            f"{len(missing)} layers of the plan are not in the Core ML package; export the pack again, then quantize it"
        )
    return result


class _Draft:
    """A block that is being rewritten: the convolutions of each layer, what is put before and after operations."""

    def __init__(self, package: Package, block: Any, uses: Mapping[str, Sequence[Ends]]) -> None:
        self.package, self.block, self.uses = package, block, uses
        self.constants = {op.outputs[0].name: op for op in block.operations if op.type == "const"}
        self.layers: dict[str, list[Any]] = {}
        self.weights: dict[str, str] = {}
        for op in block.operations:
            weights = value_name(op, "weight")
            if op.type in LAYERS and weights in self.constants:
                digest = array_digest(self.array(weights))
                self.layers.setdefault(digest, []).append(op)
                self.weights[digest] = weights
        self.version = package.spec.specificationVersion
        self.start: list[Any] = []
        self.rounded: dict[str, Range] = {}

    def array(self, name: str) -> NDArray[Any]:
        return self.package.array(self.constants[name].attributes["val"])

    def encode(self, digest: str, level: str) -> None:
        """Put the coded weights in the place of the float ones."""
        if level == "fp32":
            return
        name = f"{self.weights[digest]}__{level}"
        array = self.array(self.weights[digest])
        if level == "fp16":
            made = self.cast(name, array)
        elif level == "w4":
            made = self.four_bits(name, array)
        elif level in PALETTES:
            made = self.palette(name, array, PALETTES[level])
        else:
            made = self.eight_bits(name, array)
        self.start.append(made)
        for number, op in enumerate(self.layers[digest]):
            op.inputs["weight"].arguments[0].name = name
            if level == "int8":
                self.round(op, self.uses[digest][number])
        if level != "fp16" and digest in self.uses:
            kept = palette(array, PALETTES[level]) if level in PALETTES else None
            new = kept.table[kept.indices] if kept else decoded(coded(array, level), array.shape)
            self.correct_biases(digest, new - array)

    def cast(self, name: str, array: NDArray[np.float32]) -> Any:
        values = {"source_val": array.astype(np.float16), "output_dtype": "fp32"}
        return self.constexpr("constexpr_cast", name, array.shape, values)

    def eight_bits(self, name: str, array: NDArray[np.float32]) -> Any:
        code = coded(array, "w8")
        values = {
            "quantized_data": code.codes.reshape(array.shape),
            "zero_point": np.array(0, np.int8),
            "scale": code.scales.reshape(-1),
            "axis": np.array(0, np.int32),
        }
        return self.constexpr("constexpr_affine_dequantize", name, array.shape, values)

    def four_bits(self, name: str, array: NDArray[np.float32]) -> Any:
        """Two codes in a byte, a scale for each block of input channels."""
        code = coded(array, "w4")
        packed = self.package.packed((code.codes & 15).astype(np.uint8), 4, INT4, array.shape)
        data = operation("const", f"{name}__codes", packed.type, {})
        data.attributes["val"].CopyFrom(packed)
        scales = code.scales.reshape(array.shape[0], -1, *(1 for _ in array.shape[2:]))
        self.start += [data, constant(self.package, f"{name}__scales", scales)]
        inputs = {"data": f"{name}__codes", "scale": f"{name}__scales"}
        return operation("constexpr_blockwise_shift_scale", name, tensor_type(FLOAT32, array.shape), inputs)

    def palette(self, name: str, array: NDArray[np.float32], bits: int) -> Any:
        made = palette(array, bits)
        if self.version < 9:
            values = {
                "indices": np.frombuffer(packed_bits(made.indices, bits), np.uint8),
                "lut": made.table,
                "shape": np.array(array.shape, np.uint32),
            }
            return self.constexpr("constexpr_lut_to_dense", name, array.shape, values)
        packed = self.package.packed(made.indices, bits, UNSIGNED[bits], array.shape)
        data = operation("const", f"{name}__indices", packed.type, {})
        data.attributes["val"].CopyFrom(packed)
        table = made.table.reshape(*(1 for _ in array.shape), -1, 1)
        self.start += [data, constant(self.package, f"{name}__table", table)]
        inputs = {"indices": f"{name}__indices", "lut": f"{name}__table"}
        return operation("constexpr_lut_to_dense", name, tensor_type(FLOAT32, array.shape), inputs)

    def constexpr(self, kind: str, name: str, shape: tuple[int, ...], values: Mapping[str, Any]) -> Any:
        made = operation(kind, name, tensor_type(FLOAT32, shape), {})
        for key, value in values.items():
            made.attributes[key].CopyFrom(self.package.value(value))
        return made

    def correct_biases(self, digest: str, change: NDArray[np.float32]) -> None:
        """Take the mean of the convolution with `change`, that of the weights, off the biases added to it."""
        means = np.mean([ends.before.means for ends in self.uses[digest]], axis=0)
        shift = bias_shift(change, means)
        for number, op in enumerate(self.layers[digest]):
            bias = value_name(op, "bias")
            old = self.array(bias) if bias else np.zeros(len(shift), np.float32)
            name = f"{self.weights[digest]}__bias{number}"
            self.start.append(constant(self.package, name, (old - shift).astype(np.float32)))
            del op.inputs["bias"].arguments[:]
            op.inputs["bias"].arguments.add().name = name

    def round(self, op: Any, ends: Ends) -> None:
        """Let what goes in and what comes out pass through 8 bits."""
        self.rounded[value_name(op, "x")] = ends.before
        following = [other for other in self.block.operations if op.outputs[0].name in _inputs(other)]
        rectified = len(following) == 1 and following[0].type == "relu" and op.outputs[0].name not in self.block.outputs
        self.rounded[(following[0] if rectified else op).outputs[0].name] = ends.after

    def finish(self) -> None:
        """Put everything in its place; constants that nothing uses any more are dropped."""
        taken = {name: f"{name}__decoded" for name in self.rounded}
        after: dict[str, list[Any]] = {name: self.through(name) for name in sorted(self.rounded)}
        made_here = {output.name for op in self.block.operations for output in op.outputs}
        operations = list(self.start)
        for name in sorted(self.rounded.keys() - made_here):  # inputs of the program
            operations += after[name]
        for op in list(self.block.operations):
            for _, binding in bindings(op):
                binding.name = taken.get(binding.name, binding.name)
            operations.append(op)
            for output in op.outputs:
                operations += after.get(output.name, [])
        kept = used(operations, set(self.block.outputs))
        del self.block.operations[:]
        self.block.operations.extend(kept)

    def through(self, name: str) -> list[Any]:
        """8 bits and back."""
        scale, zero = unit_of(self.rounded[name])
        codes, type_ = f"{name}__codes", self.type_of(name)
        integers = type(type_)()
        integers.CopyFrom(type_)
        integers.tensorType.dataType = UINT8
        facts = {"scale": np.array(scale, np.float32), "zero_point": np.array(zero, np.uint8), "output_dtype": "uint8"}
        named = {key: f"{codes}__{key}" for key in facts}
        units = {key: named[key] for key in ("scale", "zero_point")}
        return [
            *(constant(self.package, named[key], fact) for key, fact in facts.items()),
            operation("quantize", codes, integers, {"input": name, **named}),
            operation("dequantize", f"{name}__decoded", type_, {"input": codes, **units}),
        ]

    def type_of(self, name: str) -> Any:
        made = (output for op in self.block.operations for output in op.outputs)
        given = (value for f in self.package.spec.mlProgram.functions.values() for value in f.inputs)
        return next(value.type for value in (*made, *given) if value.name == name)


def _inputs(op: Any) -> set[str]:
    return {binding.name for _, binding in bindings(op)}
