"""Progress on stderr: tqdm's bars on a terminal. A clone that runs where tqdm is not installed draws none."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

__all__ = ["bar"]


def bar(items: Iterable[Any] | None, what: str, unit: str, **options: Any) -> Any:
    """A bar over `items`, or with None one that `update` moves on; options are tqdm's."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return _NoBar(items)
    return tqdm(items, what, unit=unit, disable=None, file=sys.stderr, **options)


class _NoBar:
    """What the package asks of a bar."""

    def __init__(self, items: Iterable[Any] | None) -> None:
        self._items = items or ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def update(self) -> None:
        pass

    def set_postfix_str(self, text: str, *, refresh: bool) -> None:
        pass

    def write(self, text: str, file: TextIO) -> None:
        print(text, file=file)

    def close(self) -> None:
        pass
