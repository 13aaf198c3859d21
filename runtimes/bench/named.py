"""Arguments of the form `NAME=PATH` or `NAME=PATH:key=value`: what is compared, under which name, with which option."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Named", "named"]


class Named(NamedTuple):
    """A path, the name that tables give it, and the value of its option, "" where none was given."""

    name: str
    path: Path
    value: str


def named(option: str, example: str) -> Callable[[str], Named]:
    """The argparse type of an argument such as `example`, whose one option is called `option`."""
    form = re.compile(rf"(?P<name>[^=]+)=(?P<path>.+?)(?::{option}=(?P<value>[^:=]+))?")

    def parsed(text: str) -> Named:
        match = form.fullmatch(text)
        if match is None:
            raise ArgumentTypeError(f"'{text}' was given; give a name and a file, such as {example}")
        return Named(match["name"], Path(match["path"]), match["value"] or "")

    return parsed
