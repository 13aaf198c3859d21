"""JSON or TOML that is exactly a tree of frozen dataclasses: nothing missing, nothing unknown, no wrong type.

How the tree is written:

    JSON object          dataclass, or Mapping[str, T]
    JSON list            NamedTuple (a row of fixed length), or tuple[T, ...], or tuple[S, T]
    number, string       int, float (a whole number is one too), str
    null                 only where the field is `T | None`
    one of them          where the field is `S | T`: scalars, and at most one NamedTuple, which a list tells apart
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ..errors import PackError, PocketPriorError

__all__ = ["as_text", "as_tree", "decode", "parse"]

T = TypeVar("T")


def parse(text: str, where: str) -> object:
    """Objects, lists, numbers and strings of a JSON text; PackError, naming `where`, if it is not valid JSON."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PackError(f"{where} is not valid JSON: {error}; export the pack again") from error


def decode(
    kind: type[T],
    tree: object,
    where: str,
    *,
    error: type[PocketPriorError] = PackError,
    advice: str = "export the pack again",
    complete: bool = False,
) -> T:
    """Build a dataclass, whose fields may be dataclasses, from a parsed JSON or TOML tree or its `asdict` form.

    With `complete`, fields that have a default must be given, too. Raises `error` for an unknown or missing field or a
    wrong type: its message begins with `where`, the file, names the field, what was given and what is valid, and ends
    with `advice`, what to do about a file that is wrong.
    """
    return cast(T, _Decoder(error, advice, complete).value(kind, tree, where))


def as_tree(value: Any) -> Any:
    """The JSON tree of a dataclass: fields in their order, the keys of mappings sorted, tuples as lists."""
    if is_dataclass(value):
        return {f.name: as_tree(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value)
        return {name: as_tree(items[name]) for name in sorted(items)}
    if isinstance(value, tuple):
        return [as_tree(item) for item in cast(tuple[Any, ...], value)]
    return value


def as_text(tree: dict[str, Any]) -> str:
    """JSON text, one entry per line; the same tree always gives the same bytes."""
    return _text(tree, "") + "\n"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"field given twice: {', '.join(twice)}")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON knows")


def _text(value: Any, indent: str) -> str:
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = indent + "  "
    items = cast(dict[str, Any], value).items()
    rows = [f"{inner}{json.dumps(name)}: {_text(item, inner)}" for name, item in items]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


@dataclass(frozen=True)
class _Decoder:
    """Builds records from trees; see `decode` for the fields."""

    error: type[PocketPriorError]
    advice: str
    complete: bool

    def value(self, kind: Any, given: Any, where: str) -> Any:
        origin, kinds = get_origin(kind), get_args(kind)
        if is_dataclass(kind):
            return self._record(cast(type, kind), given, where)
        if origin is Mapping:
            items = self._checked(dict, given, "an object {...}", where).items()
            return {name: self.value(kinds[1], item, f"{where}: {name}") for name, item in items}
        if origin is tuple:
            found = self._checked((list, tuple), given, "a list [...]", where)
            each = kinds[:1] * len(found) if kinds[1:] == (...,) else kinds
            if len(each) != len(found):
                raise self._wrong(given, f"a list of {len(each)}", where)
            return tuple(self.value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(each, found, strict=True)))
        if origin in (Union, UnionType):
            return self._union(kinds, given, where)
        if issubclass(kind, tuple):
            return self._row(cast(type, kind), given, where)
        if kind is float and type(given) in (int, float):
            if not -sys.float_info.max <= given <= sys.float_info.max:
                raise self._wrong(given, "a finite number", where)
            return float(given)
        if type(given) is kind:
            return given
        raise self._wrong(given, kind.__name__, where)

    def _record(self, kind: type, given: Any, where: str) -> Any:
        known = get_type_hints(kind)
        found = self._checked(dict, given, "an object {...}", where)
        unknown = [name for name in found if name not in known]
        if unknown:
            raise self.error(f"{where}: unknown field '{unknown[0]}'; valid fields are: {', '.join(known)}")
        # Fields that came later have defaults: older files do not have them.
        optional = {f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}
        needed = known.keys() if self.complete else known.keys() - optional
        missing = [name for name in known if name in needed and name not in found]
        if missing:
            raise self.error(f"{where}: the field '{missing[0]}' is missing; {self.advice}")
        values = {name: self.value(known[name], item, f"{where}: {name}") for name, item in found.items()}
        try:
            return kind(**values)  # dataclasses check themselves when they are made
        except self.error as error:
            error.args = (f"{where}: {error}",)  # of whatever class: some make their message of other arguments
            raise

    def _row(self, kind: type, given: Any, where: str) -> Any:
        known = get_type_hints(kind)
        found = self._checked((list, tuple), given, "a list [...]", where)
        if len(found) != len(known):
            raise self.error(f"{where}: given {given!r}, expected a list of {len(known)}: {', '.join(known)}")
        pairs = zip(known.items(), found, strict=True)
        return kind(**{name: self.value(field, item, f"{where}: {name}") for (name, field), item in pairs})

    def _union(self, kinds: Sequence[Any], given: Any, where: str) -> Any:
        if given is None and NoneType in kinds:
            return None
        others = [kind for kind in kinds if kind is not NoneType]
        if len(others) == 1:
            return self.value(others[0], given, where)
        rows = [cast(type, kind) for kind in others if issubclass(kind, tuple)]
        if rows and isinstance(given, list):
            return self._row(rows[0], given, where)
        if type(given) in others:
            return given
        raise self._wrong(given, " or ".join(kind.__name__ for kind in others), where)

    def _checked(self, kinds: type | tuple[type, ...], given: Any, expected: str, where: str) -> Any:
        """An object, or a list, which is a tuple where the tree is that of `asdict`."""
        if isinstance(given, kinds):
            return given
        raise self._wrong(given, expected, where)

    def _wrong(self, given: Any, expected: str, where: str) -> PocketPriorError:
        shown = json.dumps(given, ensure_ascii=False, default=str)
        return self.error(f"{where}: given {shown[:80]}, expected {expected}; {self.advice}")
