"""The commands of this layer: each parses its arguments, calls one public function and prints the result."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from typing import Any

__all__ = ["comma_separated", "given"]


def comma_separated(text: str) -> list[str]:
    """The words of "a,b"."""
    return text.split(",")


def given(options: type, args: Namespace) -> dict[str, Any]:
    """The arguments that are named like fields of a dataclass of options."""
    return {field.name: getattr(args, field.name) for field in fields(options) if hasattr(args, field.name)}
