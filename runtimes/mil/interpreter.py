"""One function of a package, which can be run: its operations as steps; constants are evaluated when it is read.

The parameters of an op are read from the function that evaluates it: its signature is the op's definition. Annotations
say how a parameter is passed: as MilArray, ArrayTuple (several values), int, float, bool, str or Ints. Parameters
without a default are required; unknown ones are errors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import GraphError, PackError, UnknownNameError
from .ops import MIL_OPS
from .ops.quantization import CONSTEXPR
from .values import Constant, Feature, FindWeights, MilArray, Op, TensorType, read_value, tensor_type

__all__ = ["MIL_ARITHMETIC", "MilProgram", "MilStep", "Observer", "Signature", "block_of"]

MIL_ARITHMETIC = ("fp32", "fp16")

# Called with an op, the name of its output and the output, which nobody may write to.
Observer = Callable[[str, str, MilArray], None]


class _Name(NamedTuple):
    """A value that only has a name until the program is run."""

    name: str


_Source = _Name | Constant


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a word, got {type(value).__name__}")
    return value


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "MilArray": np.asarray,
    "Ints": lambda value: tuple(int(size) for size in np.ravel(value)),
    "int": lambda value: int(np.asarray(value).item()),
    "float": lambda value: float(np.asarray(value).item()),
    "bool": lambda value: bool(np.asarray(value).item()),
    "str": _word,
}


@dataclass(frozen=True)
class Signature:
    """The parameters of an op."""

    kinds: Mapping[str, str]  # parameter -> its annotation
    required: frozenset[str]

    @classmethod
    def of(cls, function: Op) -> Signature:
        """The signature of a function whose module annotates with names alone (annotations are postponed)."""
        parameters = inspect.signature(function).parameters
        kinds = {name: str(parameter.annotation).removesuffix(" | None") for name, parameter in parameters.items()}
        return cls(kinds, frozenset(n for n, parameter in parameters.items() if parameter.default is parameter.empty))

    def check(self, given: Iterable[str], where: str) -> None:
        """Raise PackError, which begins with `where`, for unknown and for missing parameters."""
        unknown = sorted(set(given) - set(self.kinds))
        if unknown:
            known = ", ".join(self.kinds)
            raise PackError(f"{where}: the parameter '{unknown[0]}' is unknown here; the op takes: {known}")
        missing = sorted(self.required - set(given))
        if missing:
            raise PackError(f"{where}: the parameter '{missing[0]}' is missing; export the package again")

    def convert(self, name: str, parts: Sequence[Any]) -> Any:
        """A parameter's values as the function expects them; TypeError or ValueError for others."""
        if self.kinds[name] == "ArrayTuple":
            return tuple(np.asarray(part) for part in parts)
        if len(parts) != 1:
            raise TypeError(f"the parameter '{name}' takes one value, got {len(parts)}")
        return CONVERSIONS[self.kinds[name]](parts[0])


@dataclass(frozen=True)
class MilStep:
    """An op with its parameters."""

    op: str
    function: Op
    signature: Signature
    fixed: Mapping[str, Any]  # parameters that are constants
    taken: Mapping[str, Sequence[_Source]]  # parameters that are values, or hold some
    outputs: Mapping[str, TensorType]  # as the program declares them
    where: str
    dead: tuple[str, ...] = ()  # values that no later step takes

    def results(self, values: Mapping[str, MilArray]) -> tuple[MilArray, ...]:
        """What the op returns for these values, one array for each output; GraphError for what it cannot do."""
        try:
            taken = {
                name: self.signature.convert(name, [values[s.name] if isinstance(s, _Name) else s for s in sources])
                for name, sources in self.taken.items()
            }
            result = self.function(**self.fixed, **taken)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise GraphError(f"{self.where}: {error}") from error
        results = result if isinstance(result, tuple) else (result,)
        shapes, types = [np.shape(part) for part in results], list(self.outputs.values())
        if len(shapes) != len(types) or not all(map(TensorType.takes, types, shapes)):
            declared, got = (", ".join(map(str, some)) for some in (types, shapes))
            raise GraphError(f"{self.where}: the program declares {declared}, got {got}")
        return results

    def names(self) -> set[str]:
        """The values that the step takes."""
        return {source.name for sources in self.taken.values() for source in sources if isinstance(source, _Name)}


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
        taken = {value.name: tensor_type(value.type, f"{where}, input '{value.name}'") for value in function.inputs}
        reader = _Reader(find, where, dict(taken))
        steps = _with_ends(reader.steps(block.operations), block.outputs)
        constants = {name: _widened(reader.constants[name]) for name in block.outputs if name in reader.constants}
        returned = set(block.outputs) & {*reader.declared, *constants}
        for kind, described, there in (("inputs", inputs, taken), ("outputs", outputs, returned)):
            if set(described) != set(there):
                raise PackError(
                    f"{where}: the {kind} {sorted(described)} are described, {sorted(there)} are there; export it again"
                )
        return cls(inputs, outputs, reader.declared, constants, steps, where)

    def run(
        self, inputs: Mapping[str, MilArray], arithmetic: str = "fp32", observe: Observer | None = None
    ) -> dict[str, MilArray]:
        """The outputs for these inputs; `observe` is called with everything that each op returns.

        Raises GraphError where the inputs are not those of `self.inputs`, or an op cannot be computed.
        """
        if arithmetic not in MIL_ARITHMETIC:
            raise UnknownNameError("arithmetic of the MIL interpreter", arithmetic, MIL_ARITHMETIC)
        if set(inputs) != set(self.inputs):
            given, expected = (", ".join(sorted(names)) or "(none)" for names in (inputs, self.inputs))
            raise GraphError(f"{self.where}: expected the inputs {expected}, got {given}")
        for name, feature in self.inputs.items():
            feature.check(inputs[name], self.where)
        half = arithmetic == "fp16"
        with np.errstate(all="ignore"):
            values: dict[str, Any] = {n: _stored(array, self.declared[n], half) for n, array in inputs.items()}
            values |= self.constants
            for step in self.steps:
                for (name, declared), result in zip(step.outputs.items(), step.results(values), strict=True):
                    values[name] = _stored(result, declared, half)
                    if observe is not None:
                        observe(step.op, name, values[name])
                for name in step.dead:
                    del values[name]
            return {name: np.array(values[name], feature.dtype, order="C") for name, feature in self.outputs.items()}


def block_of(function: Any, where: str) -> Any:
    """The operations of a Function message, in the version of the ops that it was made for."""
    if function.opset not in function.block_specializations:
        raise PackError(f"{where}: there is no program for the ops of '{function.opset}'; export the package again")
    return function.block_specializations[function.opset]


def _stored(value: Any, declared: TensorType, half: bool) -> MilArray:
    """An array as values are kept: numbers of 16 bits as float32, which holds them exactly."""
    array = np.asarray(value)
    if declared.element.name != "float16":
        return array.astype(declared.element.dtype, copy=False)
    if half:
        array = array.astype(np.float16, copy=False)
    return array.astype(np.float32, copy=False)


@dataclass(frozen=True)
class _Reader:
    """Reads operations in their order."""

    find: FindWeights
    where: str
    declared: dict[str, TensorType]  # the types of the values so far
    constants: dict[str, Constant] = field(default_factory=dict[str, Constant])

    def steps(self, operations: Iterable[Any]) -> list[MilStep]:
        """The steps of operations, without those that only make a constant."""
        steps: list[MilStep] = []
        for operation in operations:
            name = operation.outputs[0].name if operation.outputs else ""
            where = f"{self.where}, op '{operation.type}' of '{name}'"
            if operation.type == "const":
                if "val" not in operation.attributes:
                    raise PackError(f"{where}: the constant has no value; export the package again")
                self.constants[name] = read_value(operation.attributes["val"], self.find, where)
            elif operation.type in CONSTEXPR:
                self.constants.update(_evaluated(self._step(operation, where)))
            else:
                steps.append(self._step(operation, where))
                self.declared.update(steps[-1].outputs)
        return steps

    def _step(self, operation: Any, where: str) -> MilStep:
        if operation.blocks:
            raise PackError(f"{where}: the MIL interpreter has no control flow; export the model without it")
        function = MIL_OPS.get(operation.type) or CONSTEXPR.get(operation.type)
        if function is None:
            raise PackError(
                f"{where}: the MIL interpreter does not know the op; add it to runtimes/mil/ops, or export the model "
                "without it"
            )
        signature = Signature.of(function)
        sources = self._sources(operation, where)
        signature.check(sources, where)
        taken = {n: parts for n, parts in sources.items() if any(isinstance(part, _Name) for part in parts)}
        try:
            fixed = {n: signature.convert(n, parts) for n, parts in sources.items() if n not in taken}
        except (TypeError, ValueError) as error:
            raise PackError(f"{where}: {error}; export the package again") from error
        outputs = {output.name: tensor_type(output.type, where) for output in operation.outputs}
        return MilStep(operation.type, function, signature, fixed, taken, outputs, where)

    def _sources(self, operation: Any, where: str) -> dict[str, Sequence[_Source]]:
        """Each parameter with what it is bound to. Constant ops had attributes for parameters before iOS 18."""
        sources: dict[str, Sequence[_Source]] = {
            name: [read_value(value, self.find, where)]
            for name, value in operation.attributes.items()
            if name != "name"
        }
        for name, argument in operation.inputs.items():
            sources[name] = [self._source(binding, where) for binding in argument.arguments]
        if operation.type in CONSTEXPR:
            return sources
        return {name: [_widened(source) for source in parts] for name, parts in sources.items()}

    def _source(self, binding: Any, where: str) -> _Source:
        if binding.HasField("value"):
            return read_value(binding.value, self.find, where)
        if binding.name in self.constants:
            return self.constants[binding.name]
        if binding.name not in self.declared:
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
        name: np.asarray(result, declared.element.dtype)
        for (name, declared), result in zip(step.outputs.items(), results, strict=True)
    }


def _widened(source: _Source) -> Any:
    """A constant as the ops take it: float16 is how it is stored, float32 what is computed in."""
    return source.astype(np.float32) if isinstance(source, np.ndarray) and source.dtype == np.float16 else source


def _with_ends(steps: Sequence[MilStep], kept: Iterable[str]) -> tuple[MilStep, ...]:
    """The steps, each with the values that end with it; those `kept` do not end."""
    alive, ended = set(kept), list[MilStep]()
    for step in reversed(steps):
        seen = step.names() | step.outputs.keys()
        ended.append(replace(step, dead=tuple(sorted(seen - alive))))
        alive |= seen
    return tuple(reversed(ended))
