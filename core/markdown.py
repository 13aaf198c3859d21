"""Tables for the pages that commands write."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table whose first row is its head; the first `left` columns are aligned left, the rest right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    signs = ["<"] * left + [">"] * (len(widths) - left)
    lines = [[f"{cell:{s}{w}}" for cell, s, w in zip(row, signs, widths, strict=True)] for row in rows]
    rule = ["-" * (w - (s == ">")) + ":" * (s == ">") for s, w in zip(signs, widths, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
