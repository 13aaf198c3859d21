"""JSON that is exactly a tree of frozen dataclasses: nothing missing, nothing unknown, no wrong type.

How the tree is written:

    JSON object          dataclass, or Mapping[str, T]
    JSON list            NamedTuple (a row of fixed length), or tuple[T, ...]
    number, string       int, float (a whole number is one too), str
    null                 only where the field is `T | None`
    one of them          where the field is `S | T`: scalars, and at most one NamedTuple, which a list tells apart
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from ..errors import PackError

__all__ = ["as_text", "as_tree", "decode", "parse"]

T = TypeVar("T")


def parse(text: str, where: str) -> object:
    """Objects, lists, numbers and strings of a JSON text; PackError, naming `where`, if it is not valid JSON."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PackError(f"{where} is not valid JSON: {error}; export the pack again") from error


def decode(kind: type[T], tree: object, where: str) -> T:
    """A dataclass `kind` from a parsed tree; PackError naming the field, what was given and what is valid."""
    return cast(T, _value(kind, tree, where))


def as_tree(record: object) -> dict[str, Any]:
    """The JSON tree of a dataclass: fields in their order, the keys of mappings sorted."""
    return cast(dict[str, Any], _plain(record))


def as_text(tree: dict[str, Any]) -> str:
    """JSON text, one entry per line; the same tree always gives the same bytes."""
    return _text(tree, "") + "\n"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"field given twice: {', '.join(twice)}")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON knows")


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value)
        return {name: _plain(items[name]) for name in sorted(items)}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast(tuple[Any, ...], value)]
    return value


def _text(value: Any, indent: str) -> str:
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = indent + "  "
    items = cast(dict[str, Any], value).items()
    rows = [f"{inner}{json.dumps(name)}: {_text(item, inner)}" for name, item in items]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def _value(kind: Any, given: Any, where: str) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _record(cast(type, kind), given, where)
    if origin is Mapping:
        return _mapping(get_args(kind)[1], given, where)
    if origin is tuple:
        return tuple(_items(get_args(kind)[0], given, where))
    if origin is UnionType:
        return _union(get_args(kind), given, where)
    if issubclass(kind, tuple):
        return _row(cast(type, kind), given, where)
    return _scalar(kind, given, where)


def _record(kind: type, given: Any, where: str) -> Any:
    known = get_type_hints(kind)
    found = _object(given, where)
    unknown = [name for name in found if name not in known]
    if unknown:
        raise PackError(f"{where}: unknown field '{unknown[0]}'; valid fields are: {', '.join(known)}")
    missing = [name for name in known if name not in found and name not in _defaults(kind)]
    if missing:
        raise PackError(f"{where}: the field '{missing[0]}' is missing; export the pack again")
    return _build(kind, where, lambda: {n: _value(known[n], item, f"{where}: {n}") for n, item in found.items()})


def _defaults(kind: type) -> set[str]:
    """Fields that may be left out: those that came later, which older files do not have."""
    return {f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}


def _row(kind: type, given: Any, where: str) -> Any:
    known = get_type_hints(kind)
    found = _list(given, where)
    if len(found) != len(known):
        raise PackError(f"{where}: given {given!r}, expected a list of {len(known)}: {', '.join(known)}")
    pairs = zip(known.items(), found, strict=True)
    return kind(**{name: _value(field, item, f"{where}: {name}") for (name, field), item in pairs})


def _build(kind: type, where: str, values: Callable[[], dict[str, Any]]) -> Any:
    """Dataclasses check themselves when they are made; the place is added to what they say."""
    known = values()
    try:
        return kind(**known)
    except PackError as error:
        raise type(error)(f"{where}: {error}") from None


def _mapping(kind: Any, given: Any, where: str) -> dict[str, Any]:
    return {name: _value(kind, item, f"{where}: {name}") for name, item in _object(given, where).items()}


def _items(kind: Any, given: Any, where: str) -> list[Any]:
    return [_value(kind, item, f"{where}[{i}]") for i, item in enumerate(_list(given, where))]


def _union(kinds: Sequence[Any], given: Any, where: str) -> Any:
    if given is None and NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not NoneType]
    if len(others) == 1:
        return _value(others[0], given, where)
    rows = [cast(type, kind) for kind in others if issubclass(kind, tuple)]
    if rows and isinstance(given, list):
        return _row(rows[0], given, where)
    if type(given) in others:
        return given
    raise _wrong(given, " or ".join(kind.__name__ for kind in others), where)


def _scalar(kind: type, given: Any, where: str) -> Any:
    if kind is float and type(given) in (int, float):
        return _number(given, where)
    if type(given) is kind:
        return given
    raise _wrong(given, kind.__name__, where)


def _number(given: int | float, where: str) -> float:
    if not -sys.float_info.max <= given <= sys.float_info.max:
        raise _wrong(given, "a finite number", where)
    return float(given)


def _object(given: Any, where: str) -> dict[str, Any]:
    if isinstance(given, dict):
        return cast(dict[str, Any], given)
    raise _wrong(given, "an object {...}", where)


def _list(given: Any, where: str) -> list[Any]:
    if isinstance(given, list):
        return cast(list[Any], given)
    raise _wrong(given, "a list [...]", where)


def _wrong(given: Any, expected: str, where: str) -> PackError:
    shown = json.dumps(given, ensure_ascii=False)
    return PackError(f"{where}: given {shown[:80]}, expected {expected}; export the pack again")
