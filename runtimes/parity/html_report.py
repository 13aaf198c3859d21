"""A report as one HTML page with its images and diagrams in it; it loads nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from ...core.arrays import Image
from .findings import Check, ErrorBudget, ErrorSource, ImageResult, ParityReport, as_unit
from .formats import decibels, verdict

__all__ = ["Spot", "as_html", "distance", "embedded", "heat_map", "histogram", "waterfall", "worst_spots"]

IMAGES_SHOWN = 6  # the worst
SPOTS_SHOWN = 4  # of each image
CHECKS_SHOWN = 12  # failed ones of an error source
WIDTH, BAR, GAP, LABEL = 640, 22, 8, 150  # pixels
HISTOGRAM_BINS = 24
SPOT = 16  # pixels of the edge of a spot
_HEAT = np.array([[0, 0, 0], [130, 0, 90], [230, 60, 20], [255, 190, 0], [255, 255, 255]], np.float64)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .25em .8em; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid #ddd; } .held { color: #17692b; } .breach { color: #b3151b; font-weight: 600; }
.missing { color: #777; } figure { display: inline-block; margin: 0 1em 1em 0; } figcaption { font-size: 13px; }
img { image-rendering: pixelated; max-width: 340px; } img.spot { width: 96px; height: 96px; } .bar { fill: #3a6ea5; }
text { font: 13px system-ui, sans-serif; fill: #222; }
"""


def as_html(report: ParityReport) -> str:
    """The page."""
    title = f"Parity of {report.pack} in {report.runtime}"
    worst = sorted(report.images, key=lambda image: image.found.psnr_db)[:IMAGES_SHOWN]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="{"held" if report.ok else "breach"}">{escape(verdict(report))}</p>',
        _facts(report),
        "<h2>Error sources</h2>",
        _rows(("error source", "", "compared", "limit", "worst", "why"), map(_source_row, report.sources)),
        *(_broken(source) for source in report.sources if source.broken),
    ]
    if report.budget is not None:
        words = "Squared error of the final images by error source; the numbers are roots, in grey levels of 255."
        parts += ["<h2>Where the error comes from</h2>", f"<p>{words}</p>", waterfall(report.budget)]
    if report.layers:
        mark = _Html('<span class="breach">first to break</span>')
        rows = [(*layer[:4], decibels(layer.found.psnr_db), mark if layer.broken else "") for layer in report.layers]
        parts += ["<h2>Layers</h2>", _rows(("graph", "layer", "operator", "module", "", ""), rows)]
    if worst:
        parts += ["<h2>Images, the worst first</h2>", *map(_image, worst)]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _facts(report: ParityReport) -> str:
    facts = {
        "model": report.model,
        "precision": report.precision,
        "arithmetic": report.arithmetic,
        "reference": report.reference,
        **{f"run {i}": run for i, run in enumerate(report.runs, 1)},
        **report.environment,
        **{f"note {i}": note for i, note in enumerate(report.notes, 1)},
    }
    return _rows(("", ""), facts.items())


def _source_row(source: ErrorSource) -> Sequence[str]:
    kind = {"held": "held", "BREACH": "breach", "not measured": "missing"}[source.status]
    largest = "" if source.worst is None else f"{decibels(source.worst[1].psnr_db)} at {source.worst[0]}"
    why = source.reason or ("" if source.limit is None else source.limit.reason)
    status = _Html(f'<span class="{kind}">{source.status}</span>')
    return source.name, status, str(len(source.checks)), source.allowed, largest, why


def _broken(source: ErrorSource) -> str:
    def row(check: Check) -> Sequence[str]:
        numbers = check.found
        size = "" if numbers is None else f"largest {numbers.max_abs:.3g}, mean shift {numbers.shift:+.3g}"
        return str(check), check.problem, size

    left = len(source.broken) - CHECKS_SHOWN
    more = f"<p>and {left} more</p>" if left > 0 else ""
    shown = _rows(("where", "what", ""), map(row, source.broken[:CHECKS_SHOWN]))
    return f"<h3>{escape(source.name)}</h3>{shown}{more}"


def _image(image: ImageResult) -> str:
    distances = distance(image.restored, image.reference)
    name = f"{image.case}, {image.form}: {decibels(image.found.psnr_db)}"
    shown = [
        _figure(embedded(image.reference), "reference"),
        _figure(embedded(image.restored), "here"),
        _figure(embedded(heat_map(distances)), f"difference; white is {distances.max():.3g} grey levels"),
        f"<figure>{histogram(distances)}<figcaption>pixels by their difference</figcaption></figure>",
    ]
    spots = [_spot(image, spot) for spot in worst_spots(distances, SPOTS_SHOWN) if spot.error > 0]
    return f"<h3>{escape(name)}</h3>{''.join(shown)}<div>{''.join(spots)}</div>"


def _spot(image: ImageResult, spot: Spot) -> str:
    """The same square of the reference and of the result."""
    area = slice(spot.row, spot.row + SPOT), slice(spot.column, spot.column + SPOT)
    pair = "".join(f'<img class="spot" src="{embedded(p[area])}" alt="">' for p in (image.reference, image.restored))
    words = f"row {spot.row}, column {spot.column}: {spot.error:.3g} grey levels"
    return f"<figure>{pair}<figcaption>{words}</figcaption></figure>"


def _figure(address: str, words: str) -> str:
    return f'<figure><img src="{address}" alt="{escape(words)}"><figcaption>{escape(words)}</figcaption></figure>'


class _Html(str):
    """Text that is HTML already."""


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are escaped unless they are HTML already."""
    lines = ["".join(f"<th>{cell}</th>" for cell in head)]
    for row in rows:
        lines.append("".join(f"<td>{cell if isinstance(cell, _Html) else escape(cell)}</td>" for cell in row))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def waterfall(budget: ErrorBudget) -> str:
    """The squared error by error source, each bar starting where the one before ended; the rest; the sum."""
    squares = {source: error**2 for source, error in budget.sources.items()}
    squares["unexplained rest"] = np.sign(budget.rest) * budget.rest**2
    ends = np.cumsum([0.0, *squares.values()])
    largest = max(float(ends.max()), budget.total**2) or 1.0
    rows = [
        (source, float(min(a, b)), float(max(a, b)), f"{np.sign(b - a) * abs(b - a) ** 0.5:+.3g}")
        for (source, _), a, b in zip(squares.items(), ends, ends[1:], strict=False)
    ]
    rows.append(("in all", 0.0, budget.total**2, f"{budget.total:.3g}"))
    scale, bars = (WIDTH - LABEL - 90) / largest, ""
    for i, (name, start, end, label) in enumerate(rows):
        y, x, width = i * (BAR + GAP), LABEL + start * scale, max(1.0, (end - start) * scale)
        bars += (
            f'<text x="0" y="{y + 16}">{escape(name)}</text>'
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" class="bar"/>'
            f'<text x="{x + width + 6:.1f}" y="{y + 16}">{escape(label)}</text>'
        )
    return _svg(WIDTH, len(rows) * (BAR + GAP), bars)


def histogram(distances: NDArray[np.float64]) -> str:
    """How many pixels are how far off, in grey levels of 255, both axes logarithmic."""
    some = distances[distances > 0]
    if some.size == 0:
        return "<p>No pixel differs.</p>"
    least = max(float(some.min()), 1e-4)
    edges = np.geomspace(least, max(float(some.max()), 2 * least), HISTOGRAM_BINS + 1)
    counts, _ = np.histogram(np.clip(some, edges[0], edges[-1]), edges)
    heights = 80 * np.log1p(counts) / np.log1p(counts.max())
    step = 320 / HISTOGRAM_BINS
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{90 - height:.1f}" width="{step - 1:.1f}" height="{height:.1f}" class="bar"/>'
        for i, height in enumerate(heights)
    )
    first = f'<text x="0" y="104">{edges[0]:.2g}</text>'
    last = f'<text x="320" y="104" text-anchor="end">{edges[-1]:.2g} grey levels</text>'
    return _svg(320, 110, bars + first + last)


def _svg(width: int, height: int, content: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{content}</svg>'


class Spot(NamedTuple):
    """A square of an image."""

    row: int
    column: int
    error: float  # root mean square difference in grey levels of 255


def distance(restored: Image, reference: Image) -> NDArray[np.float64]:
    """(H, W): the largest difference of a channel of each pixel, in grey levels of 255."""
    return 255 * np.abs(as_unit(restored) - as_unit(reference))[0].max(axis=0)


def heat_map(distances: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(H, W, 3): black where there is no difference, white at the largest."""
    largest = distances.max()
    place = distances / largest * (len(_HEAT) - 1) if largest > 0 else np.zeros_like(distances)
    stops = np.arange(len(_HEAT))
    return np.stack([np.interp(place, stops, _HEAT[:, c]) for c in range(3)], axis=-1).astype(np.uint8)


def worst_spots(distances: NDArray[np.float64], count: int) -> list[Spot]:
    """The `count` squares of a grid that are furthest off, worst first."""
    spots = [
        Spot(y, x, float(np.sqrt(np.mean(np.square(distances[y : y + SPOT, x : x + SPOT])))))
        for y in range(0, distances.shape[0], SPOT)
        for x in range(0, distances.shape[1], SPOT)
    ]
    return sorted(spots, key=lambda spot: -spot.error)[:count]


def embedded(image: Image) -> str:
    """An image (H, W, 3) as a data URL of a PNG."""
    pixels = image if image.dtype == np.uint8 else (image // np.uint16(257)).astype(np.uint8)
    content = BytesIO()
    PilImage.fromarray(np.ascontiguousarray(pixels)).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
