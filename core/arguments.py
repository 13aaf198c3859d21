"""Arguments that several commands have in common, and the types of their values."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .errors import UsageError
from .pack.store import default_pack

__all__ = [
    "NamedPath",
    "add_pack",
    "chosen_pack",
    "named_path",
    "natural_number",
    "percentage",
    "size_in_bytes",
    "whole_number",
]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def add_pack(parser: argparse.ArgumentParser) -> None:
    """Declare PACK and --default, for commands about a pack."""
    parser.add_argument("pack", nargs="?", type=Path, metavar="PACK", help="folder of the pack")
    parser.add_argument("--default", action="store_true", help="the pack included in this package")


def chosen_pack(args: argparse.Namespace) -> Path:
    """The folder that PACK or --default names. Raises UsageError unless exactly one of them is given."""
    if (args.pack is None) != args.default:
        raise UsageError("give either the folder of a pack, or --default for the pack included in this package")
    return default_pack() if args.default else args.pack


def size_in_bytes(text: str) -> int:
    """Bytes of "700MB", "1.5GiB" or "800000000"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise argparse.ArgumentTypeError(f"invalid size '{text}'; give a number with MB, MiB, GB or GiB, such as 700MB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _whole_number(bounds: str, least: int, most: float = math.inf) -> Callable[[str], int]:
    """The argparse type of a whole number from `least` to `most`; the error message gives `bounds`."""

    def parsed(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number {bounds}, got '{text}'")
        return int(text)

    return parsed


whole_number = _whole_number("from 1", 1)
natural_number = _whole_number("from 0", 0)
percentage = _whole_number("from 1 to 100", 1, 100)


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
            raise argparse.ArgumentTypeError(f"expected a name and a path, such as {example}, got '{text}'")
        return NamedPath(match["name"], Path(match["path"]), match["value"] or "")

    return parsed
