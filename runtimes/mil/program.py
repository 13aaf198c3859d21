"""One function of a package, which can be run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import GraphError, PackError, UnknownNameError
from .elements import Array, TensorType, tensor_type
from .features import Feature
from .steps import Reader, Step, widened, with_ends
from .values import Constant, FindWeights

__all__ = ["ARITHMETIC", "Observer", "Program", "block_of"]

ARITHMETIC = ("fp32", "fp16")

# Called with an op, the name of its output and the output, which is not written to afterwards, by anyone.
Observer = Callable[[str, str, Array], None]


@dataclass(frozen=True)
class Program:
    """A function of a package. declared: the types of all its values. constants: outputs that are constants.

    In "fp32" arithmetic, numbers of 16 bits are only how weights are stored: all is computed and kept in float32. In
    "fp16", what an op gives is rounded to the type that the program declares for it, and becomes infinite where that is
    exceeded; within an op all is computed in float32.
    """

    inputs: Mapping[str, Feature]
    outputs: Mapping[str, Feature]
    declared: Mapping[str, TensorType]
    constants: Mapping[str, Constant]
    steps: tuple[Step, ...]
    where: str

    @classmethod
    def read(
        cls, function: Any, inputs: Mapping[str, Feature], outputs: Mapping[str, Feature], find: FindWeights, where: str
    ) -> Program:
        """The program in a Function message; PackError, which begins with `where`, for what is not known here."""
        block = block_of(function, where)
        declared = {value.name: tensor_type(value.type, f"{where}, input '{value.name}'") for value in function.inputs}
        reader = Reader(find, where, declared)
        steps = reader.steps(block.operations)
        declared |= {output.name: output.type for step in steps for output in step.outputs}
        constants = {name: widened(reader.constants[name]) for name in block.outputs if name in reader.constants}
        _check_names(where, "inputs", inputs, {value.name for value in function.inputs})
        _check_names(where, "outputs", outputs, set(block.outputs) & {*declared, *constants})
        return cls(inputs, outputs, declared, constants, with_ends(steps, block.outputs), where)

    def run(
        self, inputs: Mapping[str, Array], arithmetic: str = "fp32", observe: Observer | None = None
    ) -> dict[str, Array]:
        """The outputs for these inputs, in one of ARITHMETIC; `observe` is called with all that each op gives.

        Raises GraphError for inputs that are not those described, and for what an op cannot do.
        """
        if arithmetic not in ARITHMETIC:
            raise UnknownNameError("arithmetic of the MIL interpreter", arithmetic, ARITHMETIC)
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

    def _check(self, inputs: Mapping[str, Array]) -> None:
        if set(inputs) != set(self.inputs):
            given, expected = (", ".join(sorted(names)) or "(none)" for names in (inputs, self.inputs))
            raise GraphError(f"{self.where}: the inputs {given} were given, expected {expected}")
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


def _stored(value: Any, declared: TensorType, half: bool) -> Array:
    """An array as values are kept: numbers of 16 bits as float32, which holds them exactly."""
    array = np.asarray(value)
    if declared.element.name != "float16":
        return array.astype(declared.element.dtype, copy=False)
    if half:
        array = array.astype(np.float16, copy=False)
    return array.astype(np.float32, copy=False)
