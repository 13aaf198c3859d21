"""Quantized Core ML packages: weights in fewer bits, and integers where a plan has them.

Compressed weights are the format's own: Core ML dequantizes them when it loads a package, or while it runs. The numbers
are those of the ONNX graphs of the same plan: integers, scales, ranges of arrays, and biases that take back what
quantization adds to the mean of a channel. int8 rounds what goes into a convolution and what comes out of it to 8 bits
(iOS 17), which processors with integer arithmetic fuse with the convolution. Palettes, which only Core ML has, give
each weight the index of one of a few values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....core.errors import UsageError
from ..calibration import Range, params_of
from ..weights import QuantizedWeights, array_digest, bias_shift, dequantize, quantize_weights
from . import coreml_package as mil
from .coreml_package import CoremlPackage

__all__ = ["ConvRanges", "Palette", "palette", "quantized_package"]

NEEDS = {"int8": 8, "w4": 9}  # precision -> version of the specification: 8 came with iOS 17, 9 with iOS 18
PALETTES = {"palette4": 4, "palette6": 6, "palette8": 8}  # precision -> bits of an index
_LAYERS = ("conv", "linear")
_UINT8 = 31  # of MIL's DataType
_UNSIGNED = {4: 35, 6: 38, 8: _UINT8}
_LLOYD_ROUNDS = 100
_DENSITY_BINS = 1024


class ConvRanges(NamedTuple):
    """The ranges of the arrays before and after a convolution."""

    before: Range
    after: Range


class Palette(NamedTuple):
    """Weights as indices into a table of values."""

    indices: NDArray[np.uint8]  # of the shape of the weights
    table: NDArray[np.float32]  # (2^bits,), ascending; a runtime computes with table[indices]


def quantized_package(
    package: CoremlPackage, precisions: Mapping[str, str], uses: Mapping[str, Sequence[ConvRanges]]
) -> CoremlPackage:
    """The float32 package with its layers at the given precisions; it asks for the first Core ML that has them.

    Precisions, of WEIGHT_PRECISIONS or PALETTES, and `uses`, the convolutions in the order in which they are computed,
    are by the digest of the weights. Raises UsageError for a package without one of the layers.
    """
    result = package.copy()
    mil.raise_version(result.spec, max((NEEDS.get(precision, 0) for precision in precisions.values()), default=0))
    found: set[str] = set()
    for _, block in mil.functions(result.spec):
        rewriting = _MilRewriting(result, block, uses)
        found |= rewriting.layers.keys() & precisions.keys()
        for digest in sorted(rewriting.layers.keys() & precisions.keys()):
            rewriting.quantize(digest, precisions[digest])
        rewriting.finish()
    missing = set(precisions) - found
    if missing:
        raise UsageError(
            f"the Core ML package lacks {len(missing)} layers of the plan; export the pack again, then quantize it"
        )
    return result


def palette(weights: NDArray[np.float32], bits: int) -> Palette:
    """The weights by a table of 2^bits values from k-means on the line; lossless if they have no more values.

    Lloyd, "Least squares quantization in PCM" (1982), from a start that is already near: values as dense as the cube
    root of the density of the weights (Panter and Dite, "Quantization distortion in pulse-count modulation", 1951).
    Deterministic.
    """
    ordered = np.sort(weights.reshape(-1).astype(np.float64))
    values = np.unique(ordered)
    if len(values) > 2**bits:
        values = _lloyd(ordered, _panter_dite(ordered, 2**bits))
    table = np.full(2**bits, values[-1], np.float32)
    table[: len(values)] = values
    middles = (table[1:].astype(np.float64) + table[:-1]) / 2
    return Palette(np.searchsorted(middles, weights, side="left").astype(np.uint8), table)


def _panter_dite(ordered: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Ascending values, as dense as the cube root of the density."""
    counts, edges = np.histogram(ordered, _DENSITY_BINS)
    reached = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    return np.interp((np.arange(count) + 0.5) / count * reached[-1], reached, edges)


def _lloyd(ordered: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(_LLOYD_ROUNDS):
        ends = np.searchsorted(ordered, (table[1:] + table[:-1]) / 2)
        ends = np.concatenate([[0], ends, [len(ordered)]])
        counts = np.diff(ends)
        # A value that no weight is nearest to stays where it is.
        moved = np.where(counts > 0, np.diff(sums[ends]) / np.maximum(counts, 1), table)
        if np.array_equal(moved, table):
            break
        table = moved
    return table


class _MilRewriting:
    """A block that is being rewritten: the convolutions of each layer, and arrays that pass through 8 bits."""

    def __init__(self, package: CoremlPackage, block: Any, uses: Mapping[str, Sequence[ConvRanges]]) -> None:
        self.package, self.block, self.uses = package, block, uses
        self.constants = {op.outputs[0].name: op for op in block.operations if op.type == "const"}
        self.layers: dict[str, list[Any]] = {}
        self.weights: dict[str, str] = {}
        for op in block.operations:
            weights = mil.value_name(op, "weight")
            if op.type in _LAYERS and weights in self.constants:
                digest = array_digest(self.array(weights))
                self.layers.setdefault(digest, []).append(op)
                self.weights[digest] = weights
        self.version = package.spec.specificationVersion
        self.start: list[Any] = []
        self.rounded: dict[str, Range] = {}

    def array(self, name: str) -> NDArray[Any]:
        return self.package.array(self.constants[name].attributes["val"])

    def quantize(self, digest: str, precision: str) -> None:
        if precision == "fp32":
            return
        name, array = f"{self.weights[digest]}__{precision}", self.array(self.weights[digest])
        new: NDArray[np.float32] | None = None
        if precision == "fp16":
            values = {"source_val": array.astype(np.float16), "output_dtype": "fp32"}
            made = self.constexpr("constexpr_cast", name, array.shape, values)
        elif precision in PALETTES:
            kept = palette(array, PALETTES[precision])
            made, new = self.palette(name, kept, PALETTES[precision]), kept.table[kept.indices]
        else:
            q = quantize_weights(array, precision)
            made, new = (self.w4 if precision == "w4" else self.w8)(name, q, array.shape), dequantize(q, array.shape)
        self.start.append(made)
        for number, op in enumerate(self.layers[digest]):
            op.inputs["weight"].arguments[0].name = name
            if precision == "int8":
                self.round(op, self.uses[digest][number])
        if new is not None and digest in self.uses:
            self.correct_biases(digest, new - array)

    def w8(self, name: str, made: QuantizedWeights, shape: tuple[int, ...]) -> Any:
        values = {
            "quantized_data": made.q.reshape(shape),
            "zero_point": np.array(0, np.int8),
            "scale": made.scale.reshape(-1),
            "axis": np.array(0, np.int32),
        }
        return self.constexpr("constexpr_affine_dequantize", name, shape, values)

    def w4(self, name: str, made: QuantizedWeights, shape: tuple[int, ...]) -> Any:
        """Two numbers in a byte, a scale for each block of input channels."""
        packed = self.package.stored(mil.packed_bits((made.q & 15).astype(np.uint8), 4), mil.INT4, shape)
        scale = made.scale.reshape(shape[0], -1, *(1 for _ in shape[2:]))
        data = self.constant(f"{name}__codes", packed)
        inputs = {"data": data, "scale": self.constant(f"{name}__scales", self.package.value(scale))}
        return mil.operation("constexpr_blockwise_shift_scale", name, mil.tensor_type(mil.FLOAT32, shape), inputs)

    def palette(self, name: str, made: Palette, bits: int) -> Any:
        shape = made.indices.shape
        if self.version < 9:
            indices = np.frombuffer(mil.packed_bits(made.indices, bits), np.uint8)
            values = {"indices": indices, "lut": made.table, "shape": np.array(shape, np.uint32)}
            return self.constexpr("constexpr_lut_to_dense", name, shape, values)
        packed = self.package.stored(mil.packed_bits(made.indices, bits), _UNSIGNED[bits], shape)
        table = made.table.reshape(*(1 for _ in shape), -1, 1)
        indices = self.constant(f"{name}__indices", packed)
        inputs = {"indices": indices, "lut": self.constant(f"{name}__table", self.package.value(table))}
        return mil.operation("constexpr_lut_to_dense", name, mil.tensor_type(mil.FLOAT32, shape), inputs)

    def constant(self, name: str, value: Any) -> str:
        self.start.append(mil.constant(name, value))
        return name

    def constexpr(self, kind: str, name: str, shape: tuple[int, ...], values: Mapping[str, Any]) -> Any:
        made = mil.operation(kind, name, mil.tensor_type(mil.FLOAT32, shape), {})
        for key, value in values.items():
            made.attributes[key].CopyFrom(self.package.value(value))
        return made

    def correct_biases(self, digest: str, change: NDArray[np.float32]) -> None:
        """Subtract from the biases what a `change` of the weights adds to the mean of the convolution."""
        means = np.mean([ranges.before.means for ranges in self.uses[digest]], axis=0)
        shift = bias_shift(change, means)
        for number, op in enumerate(self.layers[digest]):
            bias = mil.value_name(op, "bias")
            old = self.array(bias) if bias else np.zeros(len(shift), np.float32)
            value = self.package.value((old - shift).astype(np.float32))
            name = self.constant(f"{self.weights[digest]}__bias{number}", value)
            del op.inputs["bias"].arguments[:]
            op.inputs["bias"].arguments.add().name = name

    def round(self, op: Any, ranges: ConvRanges) -> None:
        """Let what goes in and what comes out pass through 8 bits."""
        self.rounded[mil.value_name(op, "x")] = ranges.before
        result = op.outputs[0].name
        following = [other for other in self.block.operations if any(b.name == result for b in mil.bindings(other))]
        rectified = len(following) == 1 and following[0].type == "relu" and result not in self.block.outputs
        self.rounded[following[0].outputs[0].name if rectified else result] = ranges.after

    def finish(self) -> None:
        """Write the operations back, without constants that nothing uses any more."""
        after = {name: self.through(name) for name in sorted(self.rounded)}
        made_here = {output.name for op in self.block.operations for output in op.outputs}
        operations = list(self.start)
        for name in sorted(self.rounded.keys() - made_here):  # inputs of the program
            operations += after[name]
        for op in list(self.block.operations):
            for binding in mil.bindings(op):
                if binding.name in self.rounded:
                    binding.name = f"{binding.name}__decoded"
            operations.append(op)
            for output in op.outputs:
                operations += after.get(output.name, [])
        mil.replace_operations(self.block, mil.used(operations, self.block.outputs))

    def through(self, name: str) -> list[Any]:
        scale, zero_point = params_of(self.rounded[name])
        q, type_ = f"{name}__codes", self.type_of(name)
        integers = deepcopy(type_)
        integers.tensorType.dataType = _UINT8
        params = {"scale": f"{q}__scale", "zero_point": f"{q}__zero_point"}
        named = {**params, "output_dtype": f"{q}__output_dtype"}
        facts = np.array(scale, np.float32), np.array(zero_point, np.uint8), "uint8"
        return [
            *(mil.constant(n, self.package.value(fact)) for n, fact in zip(named.values(), facts, strict=True)),
            mil.operation("quantize", q, integers, {"input": name, **named}),
            mil.operation("dequantize", f"{name}__decoded", type_, {"input": q, **params}),
        ]

    def type_of(self, name: str) -> Any:
        made = (output for op in self.block.operations for output in op.outputs)
        given = (value for f in self.package.spec.mlProgram.functions.values() for value in f.inputs)
        return next(value.type for value in (*made, *given) if value.name == name)
