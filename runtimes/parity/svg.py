"""The two diagrams of the report, as SVG to be put into a page."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from .findings import Budget

__all__ = ["histogram", "waterfall"]

WIDTH, BAR, GAP, LABEL = 640, 22, 8, 150  # pixels
BINS = 24


def waterfall(budget: Budget) -> str:
    """Mean squared error stage by stage, each bar beginning where the one before ended; what is left over; the sum."""
    squares = {stage: levels**2 for stage, levels in budget.stages.items()}
    squares["unexplained rest"] = np.sign(budget.rest) * budget.rest**2
    ends = np.cumsum([0.0, *squares.values()])
    largest = max(float(ends.max()), budget.total**2) or 1.0
    rows = [
        (stage, float(min(a, b)), float(max(a, b)), f"{np.sign(b - a) * abs(b - a) ** 0.5:+.3g}")
        for (stage, _), a, b in zip(squares.items(), ends, ends[1:], strict=False)
    ]
    rows.append(("in all", 0.0, budget.total**2, f"{budget.total:.3g}"))
    scale = (WIDTH - LABEL - 90) / largest
    bars = [_bar(i, *row, scale) for i, row in enumerate(rows)]
    return _svg(WIDTH, len(rows) * (BAR + GAP), "".join(bars))


def histogram(distances: NDArray[np.float64]) -> str:
    """How many pixels are how far off, in levels of 255, both axes logarithmic."""
    some = distances[distances > 0]
    if some.size == 0:
        return "<p>No pixel differs.</p>"
    least = max(float(some.min()), 1e-4)
    edges = np.geomspace(least, max(float(some.max()), 2 * least), BINS + 1)
    counts, _ = np.histogram(np.clip(some, edges[0], edges[-1]), edges)
    heights = 80 * np.log1p(counts) / np.log1p(counts.max())
    step = 320 / BINS
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{90 - height:.1f}" width="{step - 1:.1f}" height="{height:.1f}" class="bar"/>'
        for i, height in enumerate(heights)
    )
    first = f'<text x="0" y="104">{edges[0]:.2g}</text>'
    last = f'<text x="320" y="104" text-anchor="end">{edges[-1]:.2g} levels</text>'
    return _svg(320, 110, bars + first + last)


def _bar(number: int, name: str, start: float, end: float, told: str, scale: float) -> str:
    y, x, width = number * (BAR + GAP), LABEL + start * scale, max(1.0, (end - start) * scale)
    return (
        f'<text x="0" y="{y + 16}">{escape(name)}</text>'
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" class="bar"/>'
        f'<text x="{x + width + 6:.1f}" y="{y + 16}">{escape(told)}</text>'
    )


def _svg(width: int, height: int, content: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{content}</svg>'
