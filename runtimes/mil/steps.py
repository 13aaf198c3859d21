"""The operations of a program as steps that can be evaluated; constants are evaluated when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import GraphError, PackError
from .constants import CONSTEXPR
from .elements import Array, TensorType, tensor_type
from .ops import OPS
from .signatures import Op, Signature
from .values import Constant, FindWeights, read_value

__all__ = ["Output", "Reader", "Step", "widened", "with_ends"]


class Output(NamedTuple):
    """A value that an op gives, with the type that the program declares for it."""

    name: str
    type: TensorType


class _Name(NamedTuple):
    """A value that is known by its name alone until the program is run."""

    name: str


_Source = _Name | Constant


@dataclass(frozen=True)
class Step:
    """An op with its parameters. fixed: those that are constants. taken: those that are values, or hold some.

    dead: the values that no later step takes.
    """

    op: str
    function: Op
    signature: Signature
    fixed: Mapping[str, Any]
    taken: Mapping[str, Sequence[_Source]]
    outputs: Sequence[Output]
    where: str
    dead: tuple[str, ...] = ()

    def results(self, values: Mapping[str, Array]) -> tuple[Array, ...]:
        """What the op gives for these values, one array for each output; GraphError for what it cannot do."""
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
            raise GraphError(f"{self.where}: {', '.join(map(str, shapes))} was computed, the program says {declared}")
        return results

    def names(self) -> set[str]:
        """The values that the step takes."""
        return {source.name for sources in self.taken.values() for source in sources if isinstance(source, _Name)}

    def _converted(self, parameter: str, sources: Sequence[_Source], values: Mapping[str, Array]) -> Any:
        parts = [values[source.name] if isinstance(source, _Name) else source for source in sources]
        return self.signature.convert(parameter, parts)


class Reader:
    """Reads operations in their order. known: the names of the values that there are so far."""

    def __init__(self, find: FindWeights, where: str, inputs: Iterable[str]) -> None:
        self._find = find
        self._where = where
        self.constants: dict[str, Constant] = {}
        self.known = set(inputs)

    def steps(self, operations: Iterable[Any]) -> list[Step]:
        """The steps of operations; those that only make a constant are none."""
        steps: list[Step] = []
        for operation in operations:
            name = operation.outputs[0].name if operation.outputs else ""
            where = f"{self._where}, op '{operation.type}' of '{name}'"
            if operation.type == "const":
                self.constants[name] = self._constant(operation, where)
            elif operation.type in CONSTEXPR:
                self.constants |= self._evaluated(self._step(operation, CONSTEXPR, where, lambda constant: constant))
            else:
                steps.append(self._step(operation, OPS, where, widened))
                self.known |= {output.name for output in steps[-1].outputs}
        return steps

    def _constant(self, operation: Any, where: str) -> Constant:
        if "val" not in operation.attributes:
            raise PackError(f"{where}: the constant has no value; export the package again")
        return read_value(operation.attributes["val"], self._find, where)

    @staticmethod
    def _evaluated(step: Step) -> dict[str, Constant]:
        if step.taken:
            raise PackError(
                f"{step.where}: a constant depends on the values {sorted(step.names())}; expected constants"
            )
        try:
            results = step.results({})
        except GraphError as error:
            raise PackError(f"{error}; export the package again") from error
        return {
            output.name: np.asarray(result, output.type.element.dtype)
            for output, result in zip(step.outputs, results, strict=True)
        }

    def _step(
        self, operation: Any, table: Mapping[str, Op], where: str, prepare: Callable[[Constant], Constant]
    ) -> Step:
        if operation.blocks:
            raise PackError(f"{where}: control flow is not known to the MIL interpreter; export the model without it")
        if operation.type not in table:
            raise PackError(
                f"{where}: the op is not known to the MIL interpreter; add it to runtimes/mil/ops, or export the model "
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
        outputs = [Output(output.name, tensor_type(output.type, where)) for output in operation.outputs]
        return Step(operation.type, table[operation.type], signature, fixed, taken, outputs, where)

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


def widened(constant: Constant) -> Constant:
    """A constant as the ops take it: float16 is how it is stored, float32 what is computed in."""
    if isinstance(constant, str) or constant.dtype != np.float16:
        return constant
    return constant.astype(np.float32)


def with_ends(steps: Sequence[Step], kept: Iterable[str]) -> tuple[Step, ...]:
    """The steps, each with the values that end with it; those `kept` do not end."""
    alive, ended = set(kept), list[Step]()
    for step in reversed(steps):
        seen = step.names() | {output.name for output in step.outputs}
        ended.append(replace(step, dead=tuple(sorted(seen - alive))))
        alive |= seen
    return tuple(reversed(ended))
