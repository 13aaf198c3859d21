"""The parameters of an op, read from the function that evaluates it: its signature is the op's definition.

A parameter is annotated with what it is handed over as: Array, Arrays (several values), int, float, bool, str, Ints.
Those without a default must be given, and no others than those may be.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import PackError
from .elements import Array

__all__ = ["Arrays", "Ints", "Op", "Signature"]

Op = Callable[..., Any]
Arrays = tuple[Array, ...]
Ints = tuple[int, ...]


def _number(value: Any, kind: Callable[[Any], Any]) -> Any:
    return kind(np.asarray(value).item())


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a word was expected, {type(value).__name__} was given")
    return value


KINDS: dict[str, Callable[[Any], Any]] = {
    "Array": np.asarray,
    "Ints": lambda value: tuple(int(size) for size in np.ravel(value)),
    "int": lambda value: _number(value, int),
    "float": lambda value: _number(value, float),
    "bool": lambda value: _number(value, bool),
    "str": _word,
}


@dataclass(frozen=True)
class Signature:
    """kinds: parameter -> what it is handed over as."""

    kinds: Mapping[str, str]
    required: frozenset[str]

    @classmethod
    def of(cls, function: Op) -> Signature:
        """The signature of a function whose module annotates with names alone (annotations are postponed)."""
        parameters = inspect.signature(function).parameters
        kinds = {name: str(parameter.annotation).removesuffix(" | None") for name, parameter in parameters.items()}
        return cls(kinds, frozenset(n for n, parameter in parameters.items() if parameter.default is parameter.empty))

    def check(self, given: Iterable[str], where: str) -> None:
        """Raise PackError, which begins with `where`, unless these are parameters of the op and all that it needs."""
        unknown = sorted(set(given) - set(self.kinds))
        if unknown:
            known = ", ".join(self.kinds)
            raise PackError(f"{where}: the parameter '{unknown[0]}' is unknown here; the op takes: {known}")
        missing = sorted(self.required - set(given))
        if missing:
            raise PackError(f"{where}: the parameter '{missing[0]}' is missing; export the package again")

    def convert(self, name: str, parts: Sequence[Any]) -> Any:
        """What a parameter is bound to, as the function expects it; TypeError or ValueError for something else."""
        if self.kinds[name] == "Arrays":
            return tuple(np.asarray(part) for part in parts)
        if len(parts) != 1:
            raise TypeError(f"the parameter '{name}' takes one value, {len(parts)} were given")
        return KINDS[self.kinds[name]](parts[0])
