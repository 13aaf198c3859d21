"""The parameters of an op, read from the function that evaluates it: its signature is the op's definition.

Annotations say how a parameter is passed: as MilArray, ArrayTuple (several values), int, float, bool, str or Ints.
Parameters without a default are required; unknown ones are errors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import PackError
from .values import MilArray

__all__ = ["ArrayTuple", "Ints", "Op", "Signature"]

Op = Callable[..., Any]
ArrayTuple = tuple[MilArray, ...]
Ints = tuple[int, ...]


def _number(value: Any, kind: Callable[[Any], Any]) -> Any:
    return kind(np.asarray(value).item())


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a word, got {type(value).__name__}")
    return value


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "MilArray": np.asarray,
    "Ints": lambda value: tuple(int(size) for size in np.ravel(value)),
    "int": lambda value: _number(value, int),
    "float": lambda value: _number(value, float),
    "bool": lambda value: _number(value, bool),
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
