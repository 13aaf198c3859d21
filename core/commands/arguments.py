"""Argument types that several commands share."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["NamedPath", "named_path", "positive_number", "whole_number"]


class NamedPath(NamedTuple):
    """A path, the name that tables give it, and the value of its option, "" for none."""

    name: str
    path: Path
    value: str


def named_path(option: str, example: str) -> Callable[[str], NamedPath]:
    """The argparse type of `NAME=PATH` or `NAME=PATH:option=VALUE`; the error message shows `example`."""
    form = re.compile(rf"(?P<name>[^=]+)=(?P<path>.+?)(?::{option}=(?P<value>[^:=]+))?")

    def parsed(text: str) -> NamedPath:
        match = form.fullmatch(text)
        if match is None:
            raise ArgumentTypeError(f"expected a name and a path, such as {example}, got '{text}'")
        return NamedPath(match["name"], Path(match["path"]), match["value"] or "")

    return parsed


def whole_number(least: int) -> Callable[[str], int]:
    """The argparse type of a whole number from `least` (0 or more) on."""

    def parsed(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"expected a whole number from {least}, got '{text}'")
        return int(text)

    return parsed


def positive_number(text: str) -> float:
    """The argparse type of a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"expected a number above 0, got '{text}'")
    return number
