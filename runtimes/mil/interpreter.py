"""One function of a package, which can be run: its operations as steps; constants are evaluated when it is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import GraphError, PackError, UnknownNameError
from .features import Feature
from .ops import MIL_OPS
from .ops.quantization import CONSTEXPR
from .signatures import Op, Signature
from .values import Constant, FindWeights, MilArray, TensorType, read_value, tensor_type

__all__ = ["MIL_ARITHMETIC", "MilProgram", "MilStep", "Observer", "block_of"]

MIL_ARITHMETIC = ("fp32", "fp16")

# Called with an op, the name of its output and the output, which nobody may write to.
Observer = Callable[[str, str, MilArray], None]


class _Output(NamedTuple):
    """A value that an op returns, with the type that the program declares for it."""

    name: str
    type: TensorType


class _Name(NamedTuple):
    """A value that only has a name until the program is run."""

    name: str


_Source = _Name | Constant


@dataclass(frozen=True)
class MilStep:
    """An op with its parameters."""

    op: str
    function: Op
    signature: Signature
    fixed: Mapping[str, Any]  # parameters that are constants
    taken: Mapping[str, Sequence[_Source]]  # parameters that are values, or hold some
    outputs: Sequence[_Output]
    where: str
    dead: tuple[str, ...] = ()  # values that no later step takes

    def results(self, values: Mapping[str, MilArray]) -> tuple[MilArray, ...]:
        """What the op returns for these values, one array for each output; GraphError for what it cannot do."""
        try:
            taken = {name: self._converted(name, sources, values) for name, sources in self.taken.items()}
            result = self.function(**self.fixed, **taken)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise GraphError(f"{self.where}: {error}") from error
        results = result if isinstance(result, tuple) else (result,)
        shapes = [np.shape(part) for part in results]
        if len(results) != len(self.outputs) or not all(
            output.type.takes(shape) for output, shape in zip(self.outputs, shapes, strict=True)
        ):
            declared = ", ".join(str(output.type) for output in self.outputs)
            raise GraphError(f"{self.where}: the program declares {declared}, got {', '.join(map(str, shapes))}")
        return results

    def names(self) -> set[str]:
        """The values that the step takes."""
        return {source.name for sources in self.taken.values() for source in sources if isinstance(source, _Name)}

    def _converted(self, parameter: str, sources: Sequence[_Source], values: Mapping[str, MilArray]) -> Any:
        parts = [values[source.name] if isinstance(source, _Name) else source for source in sources]
        return self.signature.convert(parameter, parts)


@dataclass(frozen=True)
class MilProgram:
    """A function of a package.

    In "fp32" arithmetic, numbers of 16 bits are only how weights are stored: everything is computed and kept in
    float32. In "fp16", what an op returns is rounded to the type that the program declares for it, and becomes infinite
    beyond its range; within an op everything is computed in float32.
    """

    inputs: Mapping[str, Feature]
    outputs: Mapping[str, Feature]
    declared: Mapping[str, TensorType]  # the types of all values
    constants: Mapping[str, Constant]  # outputs that are constants
    steps: tuple[MilStep, ...]
    where: str

    @classmethod
    def read(
        cls, function: Any, inputs: Mapping[str, Feature], outputs: Mapping[str, Feature], find: FindWeights, where: str
    ) -> MilProgram:
        """The program in a Function message; PackError, which begins with `where`, for what is unknown here."""
        block = block_of(function, where)
        declared = {value.name: tensor_type(value.type, f"{where}, input '{value.name}'") for value in function.inputs}
        reader = _Reader(find, where, declared)
        steps = reader.steps(block.operations)
        declared |= {output.name: output.type for step in steps for output in step.outputs}
        constants = {name: _widened(reader.constants[name]) for name in block.outputs if name in reader.constants}
        _check_names(where, "inputs", inputs, {value.name for value in function.inputs})
        _check_names(where, "outputs", outputs, set(block.outputs) & {*declared, *constants})
        return cls(inputs, outputs, declared, constants, _with_ends(steps, block.outputs), where)

    def run(
        self, inputs: Mapping[str, MilArray], arithmetic: str = "fp32", observe: Observer | None = None
    ) -> dict[str, MilArray]:
        """The outputs for these inputs.

        Args:
            inputs: By name, as described by `self.inputs`.
            arithmetic: One of MIL_ARITHMETIC.
            observe: Called with everything that each op returns.

        Raises:
            GraphError: The inputs are not those described, or an op cannot be computed.
        """
        if arithmetic not in MIL_ARITHMETIC:
            raise UnknownNameError("arithmetic of the MIL interpreter", arithmetic, MIL_ARITHMETIC)
        self._check(inputs)
        half = arithmetic == "fp16"
        with np.errstate(all="ignore"):
            values: dict[str, Any] = {n: _stored(array, self.declared[n], half) for n, array in inputs.items()}
            values |= self.constants
            for step in self.steps:
                for output, result in zip(step.outputs, step.results(values), strict=True):
                    values[output.name] = _stored(result, output.type, half)
                    if observe is not None:
                        observe(step.op, output.name, values[output.name])
                for name in step.dead:
                    del values[name]
            return {name: np.array(values[name], feature.dtype, order="C") for name, feature in self.outputs.items()}

    def _check(self, inputs: Mapping[str, MilArray]) -> None:
        if set(inputs) != set(self.inputs):
            given, expected = (", ".join(sorted(names)) or "(none)" for names in (inputs, self.inputs))
            raise GraphError(f"{self.where}: expected the inputs {expected}, got {given}")
        for name, feature in self.inputs.items():
            feature.check(inputs[name], self.where)


def block_of(function: Any, where: str) -> Any:
    """The operations of a Function message, in the version of the ops that it was made for."""
    if function.opset not in function.block_specializations:
        raise PackError(f"{where}: there is no program for the ops of '{function.opset}'; export the package again")
    return function.block_specializations[function.opset]


def _check_names(where: str, kind: str, described: Collection[str], there: Collection[str]) -> None:
    if set(described) != set(there):
        raise PackError(
            f"{where}: the {kind} {sorted(described)} are described, {sorted(there)} are there; export it again"
        )


def _stored(value: Any, declared: TensorType, half: bool) -> MilArray:
    """An array as values are kept: numbers of 16 bits as float32, which holds them exactly."""
    array = np.asarray(value)
    if declared.element.name != "float16":
        return array.astype(declared.element.dtype, copy=False)
    if half:
        array = array.astype(np.float16, copy=False)
    return array.astype(np.float32, copy=False)


class _Reader:
    """Reads operations in their order."""

    def __init__(self, find: FindWeights, where: str, inputs: Iterable[str]) -> None:
        self._find = find
        self._where = where
        self.constants: dict[str, Constant] = {}
        self.known = set(inputs)  # the names of the values so far

    def steps(self, operations: Iterable[Any]) -> list[MilStep]:
        """The steps of operations, without those that only make a constant."""
        steps: list[MilStep] = []
        for operation in operations:
            name = operation.outputs[0].name if operation.outputs else ""
            where = f"{self._where}, op '{operation.type}' of '{name}'"
            if operation.type == "const":
                self.constants[name] = self._constant(operation, where)
            elif operation.type in CONSTEXPR:
                self.constants |= _evaluated(self._step(operation, CONSTEXPR, where, lambda constant: constant))
            else:
                steps.append(self._step(operation, MIL_OPS, where, _widened))
                self.known |= {output.name for output in steps[-1].outputs}
        return steps

    def _constant(self, operation: Any, where: str) -> Constant:
        if "val" not in operation.attributes:
            raise PackError(f"{where}: the constant has no value; export the package again")
        return read_value(operation.attributes["val"], self._find, where)

    def _step(
        self, operation: Any, table: Mapping[str, Op], where: str, prepare: Callable[[Constant], Constant]
    ) -> MilStep:
        if operation.blocks:
            raise PackError(f"{where}: the MIL interpreter has no control flow; export the model without it")
        if operation.type not in table:
            raise PackError(
                f"{where}: the MIL interpreter does not know the op; add it to runtimes/mil/ops, or export the model "
                "without it"
            )
        signature = Signature.of(table[operation.type])
        sources = self._sources(operation, prepare, where)
        signature.check(sources, where)
        taken = {n: parts for n, parts in sources.items() if any(isinstance(part, _Name) for part in parts)}
        try:
            fixed = {n: signature.convert(n, parts) for n, parts in sources.items() if n not in taken}
        except (TypeError, ValueError) as error:
            raise PackError(f"{where}: {error}; export the package again") from error
        outputs = [_Output(output.name, tensor_type(output.type, where)) for output in operation.outputs]
        return MilStep(operation.type, table[operation.type], signature, fixed, taken, outputs, where)

    def _sources(
        self, operation: Any, prepare: Callable[[Constant], Constant], where: str
    ) -> dict[str, Sequence[_Source]]:
        """Each parameter with what it is bound to. Constant ops had attributes for parameters before iOS 18."""
        sources: dict[str, Sequence[_Source]] = {
            name: [prepare(read_value(value, self._find, where))]
            for name, value in operation.attributes.items()
            if name != "name"
        }
        for name, argument in operation.inputs.items():
            sources[name] = [self._source(binding, prepare, where) for binding in argument.arguments]
        return sources

    def _source(self, binding: Any, prepare: Callable[[Constant], Constant], where: str) -> _Source:
        if binding.HasField("value"):
            return prepare(read_value(binding.value, self._find, where))
        if binding.name in self.constants:
            return prepare(self.constants[binding.name])
        if binding.name not in self.known:
            raise PackError(
                f"{where}: the value '{binding.name}' is used before it is computed; export the package again"
            )
        return _Name(binding.name)


def _evaluated(step: MilStep) -> dict[str, Constant]:
    if step.taken:
        raise PackError(f"{step.where}: a constant depends on the values {sorted(step.names())}; expected constants")
    try:
        results = step.results({})
    except GraphError as error:
        raise PackError(f"{error}; export the package again") from error
    return {
        output.name: np.asarray(result, output.type.element.dtype)
        for output, result in zip(step.outputs, results, strict=True)
    }


def _widened(constant: Constant) -> Constant:
    """A constant as the ops take it: float16 is how it is stored, float32 what is computed in."""
    if isinstance(constant, str) or constant.dtype != np.float16:
        return constant
    return constant.astype(np.float32)


def _with_ends(steps: Sequence[MilStep], kept: Iterable[str]) -> tuple[MilStep, ...]:
    """The steps, each with the values that end with it; those `kept` do not end."""
    alive, ended = set(kept), list[MilStep]()
    for step in reversed(steps):
        seen = step.names() | {output.name for output in step.outputs}
        ended.append(replace(step, dead=tuple(sorted(seen - alive))))
        alive |= seen
    return tuple(reversed(ended))
