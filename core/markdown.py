"""Markdown tables, and scatter plots as SVG, for the pages that commands write.

A plot has named points in panels, a logarithmic horizontal axis, and labels that do not overlap. It brings its own
light background, so that it is readable on a dark page too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Panel", "Point", "scatter", "table"]

_WIDTH, _HEIGHT = 380, 330  # of a panel with its axes, pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 34, 46  # from the edges of a panel to its axes
_LEGEND = 30  # height of the line with the series
_FONT, _GLYPH = 11, 6.6  # height of the text and mean width of a character, pixels
_MARK = 4.5  # radius of a mark, pixels
_LINE = 13  # height of a label, pixels
_TICKS = 7  # numbers that have room at a horizontal axis
_MARGIN = 0.12  # share of the range of the points that is left free around them

_COLOURS = ("#0b62c4", "#c2410c", "#4b5563", "#6d28d9")  # at least 4.5 : 1 on the background
_BACKGROUND, _INK, _GRID = "#fbfbfa", "#1f2328", "#dfe3e8"

_Rect = tuple[float, float, float, float]  # left, top, right, bottom

_ANGLES = (0, 180, 270, 90, 315, 45, 225, 135)  # degrees, clockwise from the right, the best first


class Point(NamedTuple):
    """A point of a plot."""

    label: str
    x: float  # above 0
    y: float
    series: str  # decides its mark


class Panel(NamedTuple):
    """One diagram."""

    title: str
    y_label: str
    points: Sequence[Point]
    verticals: Mapping[str, float] = {}  # dashed lines: label -> x


def table(rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table whose first row is its head; the first `left` columns are aligned left, the rest right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    signs = ["<"] * left + [">"] * (len(widths) - left)
    lines = [[f"{cell:{s}{w}}" for cell, s, w in zip(row, signs, widths, strict=True)] for row in rows]
    rule = ["-" * (w - (s == ">")) + ":" * (s == ">") for s, w in zip(signs, widths, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def scatter(panels: Sequence[Panel], x_label: str, columns: int = 3) -> str:
    """The panels, `columns` of them in a row, as one SVG text, with a legend of the series above.

    Raises ValueError without a panel, for a panel without points, or where x is not positive.
    """
    if not panels or not all(panel.points for panel in panels):
        raise ValueError("a plot needs at least one panel, and each panel at least one point")
    if min(point.x for panel in panels for point in panel.points) <= 0:
        raise ValueError("a logarithmic axis takes numbers above 0 only; leave the point out")
    series = list(dict.fromkeys(point.series for panel in panels for point in panel.points))
    width = _WIDTH * min(columns, len(panels))
    height = _LEGEND + _HEIGHT * -(-len(panels) // columns)
    content = [f'<rect width="{width}" height="{height}" rx="6" fill="{_BACKGROUND}"/>', *_legend(series)]
    for number, panel in enumerate(panels):
        down, right = divmod(number, columns)
        content.append(f'<g transform="translate({right * _WIDTH} {_LEGEND + down * _HEIGHT})">')
        content += [*_panel(panel, x_label, series), "</g>"]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = f'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="{_FONT}" fill="{_INK}" role="img"'
    return "\n".join([f"{head} {font}>", *content, "</svg>"]) + "\n"


class _Scale(NamedTuple):
    """A linear map of [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _legend(series: Sequence[str]) -> Iterator[str]:
    x = float(_LEFT)
    for number, name in enumerate(series):
        yield _mark(x, _LEGEND / 2 + 3, number)
        yield _text(x + 10, _LEGEND / 2 + 7, name)
        x += 34 + _GLYPH * len(name)


def _panel(panel: Panel, x_label: str, series: Sequence[str]) -> Iterator[str]:
    across = [math.log10(x) for x in (*(point.x for point in panel.points), *panel.verticals.values())]
    x = _Scale(*_range(across, 0.1), _LEFT, _WIDTH - _RIGHT)
    y = _Scale(*_range([point.y for point in panel.points], 1e-3), _HEIGHT - _BOTTOM, _TOP)
    yield _text(_LEFT, _TOP - 12, panel.title, 'font-weight="600"')
    yield from _axes(x, y)
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, x_label, 'text-anchor="middle"')
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    yield _text(12, middle, panel.y_label, f'text-anchor="middle" transform="rotate(-90 12 {middle:.1f})"')
    taken: list[_Rect] = []
    for label, value in panel.verticals.items():
        at = x(math.log10(value))
        dashed = f'stroke="{_INK}" stroke-dasharray="4 3" stroke-opacity="0.6"'
        yield f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{_HEIGHT - _BOTTOM}" {dashed}/>'
        wide = _GLYPH * len(label)
        left = at + 4 if at + 4 + wide < _WIDTH - _RIGHT else at - 4 - wide
        rows = [(left, top, left + wide, top + _LINE) for top in range(_TOP + 2, _HEIGHT - _BOTTOM, _LINE)]
        box = (_free(rows, taken) or rows)[0]
        taken.append(box)
        yield _text(left, box[3] - 3, label, 'font-style="italic"')
    places = [(x(math.log10(point.x)), y(point.y)) for point in panel.points]
    for point, place in zip(panel.points, places, strict=True):
        yield _mark(*place, series.index(point.series))
    taken += [(px - _MARK - 1, py - _MARK - 1, px + _MARK + 1, py + _MARK + 1) for px, py in places]
    for point, place in zip(panel.points, places, strict=True):
        box = _label_box(*place, point.label, taken)
        taken.append(box)
        yield from _label(point.label, place, box)


def _axes(x: _Scale, y: _Scale) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM
    for value in _decades(10**x.low, 10**x.high):
        at = x(math.log10(value))
        yield f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{bottom}" stroke="{_GRID}"/>'
        yield _text(at, bottom + 15, f"{value:g}", 'text-anchor="middle"')
    step, digits = _step(y.high - y.low)
    for number in range(math.ceil(y.low / step), math.floor(y.high / step) + 1):
        at = y(number * step)
        yield f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{_WIDTH - _RIGHT}" y2="{at:.1f}" stroke="{_GRID}"/>'
        yield _text(_LEFT - 6, at + 4, f"{number * step:.{digits}f}", 'text-anchor="end"')
    yield f'<path d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}" fill="none" stroke="{_INK}"/>'


def _range(values: Sequence[float], least: float) -> tuple[float, float]:
    """The ends of an axis: those of the values with a margin of at least `least`."""
    low, high = min(values), max(values)
    room = max(_MARGIN * (high - low), least)
    return low - room, high + room


def _decades(low: float, high: float) -> list[float]:
    """Round multiples of powers of ten between two numbers, as many as fit, except for very wide ranges."""
    marks: list[float] = []
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        marks = [f * 10.0**power for power in powers for f in factors if low <= f * 10.0**power <= high]
        if len(marks) <= _TICKS:
            break
    return marks


def _step(span: float) -> tuple[float, int]:
    """A round distance of four to nine marks over a span, and its number of decimals."""
    power = math.floor(math.log10(span / 4))
    factor = max(factor for factor in (1, 2, 5) if factor * 10**power <= span / 4)
    return factor * 10.0**power, max(0, -power)


def _label_box(x: float, y: float, label: str, taken: Sequence[_Rect]) -> _Rect:
    """The nearest free place for a label; the first one if there is none."""
    width = _GLYPH * len(label)
    boxes = [_box_at(x, y, width, angle, distance) for distance in (8, 16, 26, 38, 52, 68) for angle in _ANGLES]
    inside = [b for b in boxes if b[0] > _LEFT and b[2] < _WIDTH - 2 and b[1] > _TOP - 8 and b[3] < _HEIGHT - _BOTTOM]
    return (_free(inside, taken) or inside or boxes)[0]


def _box_at(x: float, y: float, width: float, angle: float, distance: float) -> _Rect:
    """A box of the width of a label, whose nearest point lies in this direction from the mark."""
    right, down = (round(f(math.radians(angle)), 3) for f in (math.cos, math.sin))
    left = x + right * distance - (0 if right > 0 else width if right < 0 else width / 2)
    top = y + down * distance - (0 if down > 0 else _LINE if down < 0 else _LINE / 2)
    return left, top, left + width, top + _LINE


def _free(boxes: Sequence[_Rect], taken: Sequence[_Rect]) -> list[_Rect]:
    """The boxes that overlap none of those that are taken."""
    return [box for box in boxes if not any(_overlap(box, other) for other in taken)]


def _overlap(a: _Rect, b: _Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _label(label: str, place: tuple[float, float], box: _Rect) -> Iterator[str]:
    """The text, and a thin line to its point if they are far apart."""
    x, y = (min(max(at, low), high) for at, low, high in zip(place, box[:2], box[2:], strict=True))
    if math.dist(place, (x, y)) > 2 * _MARK + 3:
        yield f'<path d="M{place[0]:.1f} {place[1]:.1f}L{x:.1f} {y:.1f}" stroke="{_INK}" stroke-opacity="0.45"/>'
    at, anchor = sum(box[::2]) / 2, "middle"
    if box[0] > place[0]:  # what is anchored at the side that faces the point stays clear of it in any font
        at, anchor = box[0], "start"
    elif box[2] < place[0]:
        at, anchor = box[2], "end"
    halo = f'stroke="{_BACKGROUND}" stroke-width="3" stroke-linejoin="round" paint-order="stroke"'
    yield _text(at, box[3] - 3, label, f'text-anchor="{anchor}" {halo}')


def _mark(x: float, y: float, series: int) -> str:
    """A disc, a square, a triangle or a diamond: the shape tells series apart without colour."""
    paint, r = f'fill="{_COLOURS[series % len(_COLOURS)]}"', _MARK
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {paint}/>',
        f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}" {paint}/>',
        f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r}h{-2 * r - 2}z" {paint}/>',
        f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}z" {paint}/>',
    )
    return shapes[series % len(shapes)]


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{f" {more}" if more else ""}>{escape(words)}</text>'
