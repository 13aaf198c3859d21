"""The JSON of dataclasses: both ways, the same bytes, nothing extra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from pocketprior.core.errors import PackError
from pocketprior.core.pack.json import as_text, as_tree, decode, parse


class Row(NamedTuple):
    name: str
    sizes: tuple[int | str, ...]


@dataclass(frozen=True)
class Inner:
    share: float


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner | None
    rows: tuple[Row, ...]
    by_name: Mapping[str, Inner]


@dataclass(frozen=True)
class Either:
    one: int | Row


FULL = Outer(3, Inner(0.5), (Row("a", (1, "h")), Row("b", ())), {"z": Inner(1.0), "a": Inner(2.0)})


def test_there_and_back() -> None:
    assert decode(Outer, parse(as_text(as_tree(FULL)), "it"), "it") == FULL


def test_null_where_it_may_be() -> None:
    empty = Outer(0, None, (), {})
    assert decode(Outer, parse(as_text(as_tree(empty)), "it"), "it") == empty


def test_text_is_stable_and_readable() -> None:
    assert as_text(as_tree(FULL)) == (
        '{\n  "count": 3,\n  "inner": {\n    "share": 0.5\n  },\n  "rows": [["a", [1, "h"]], ["b", []]],\n'
        '  "by_name": {\n    "a": {\n      "share": 2.0\n    },\n    "z": {\n      "share": 1.0\n    }\n  }\n}\n'
    )


def test_a_whole_number_is_a_float_too() -> None:
    share = decode(Inner, {"share": 2}, "it").share
    assert (share, type(share)) == (2.0, float)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"share": true}', "it: share: given true, expected float"),
        ('{"share": 1, "more": 2}', "it: unknown field 'more'; valid fields are: share"),
        ("{}", "it: the field 'share' is missing"),
        ("[]", r"it: given \[\], expected an object"),
        ('{"share": 1e400}', "finite number"),
    ],
)
def test_names_the_place(text: str, words: str) -> None:
    with pytest.raises(PackError, match=words):
        decode(Inner, parse(text, "it"), "it")


@pytest.mark.parametrize("text", ['{"share": 1, "share": 2}', '{"share": Infinity}', "{]"])
def test_refuses_what_json_readers_differ_on(text: str) -> None:
    with pytest.raises(PackError, match="it is not valid JSON"):
        parse(text, "it")


def test_numbers_that_are_not_finite_are_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        as_text(as_tree(Inner(float("nan"))))


@pytest.mark.parametrize("one", [3, Row("a", (1, "h"))])
def test_a_list_is_told_from_a_number(one: int | Row) -> None:
    assert decode(Either, parse(as_text(as_tree(Either(one))), "it"), "it") == Either(one)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"one": "3"}', 'it: one: given "3", expected int or Row'),
        ('{"one": null}', "it: one: given null, expected int or Row"),
        ('{"one": ["a"]}', r"it: one: given \['a'\], expected a list of 2: name, sizes"),
        ('{"one": [1, []]}', "it: one: name: given 1, expected str"),
    ],
)
def test_what_is_neither_is_said(text: str, words: str) -> None:
    with pytest.raises(PackError, match=words):
        decode(Either, parse(text, "it"), "it")
