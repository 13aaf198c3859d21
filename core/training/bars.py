"""Progress on stderr: tqdm's bars on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["bar"]


def bar(items: Iterable[Any] | None, what: str, unit: str, **options: Any) -> Any:
    """Return a bar over `items`, or with None one that `update` moves on; options are tqdm's."""
    return tqdm(items, what, unit=unit, disable=None, file=sys.stderr, **options)
