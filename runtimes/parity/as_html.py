"""A report as one page that needs nothing else: pictures and diagrams are in it, and it asks for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .findings import Check, Picture, Report, Stage
from .heat import SPOT, Spot, distance, embedded, heat_map, worst_spots
from .svg import histogram, waterfall
from .text import allowed, decibels, verdict

__all__ = ["as_html"]

PICTURES = 6  # that are shown, the worst
SPOTS = 4  # of each picture
BROKEN = 12  # checks that are shown of a stage

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .25em .8em; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid #ddd; } .held { color: #17692b; } .breach { color: #b3151b; font-weight: 600; }
.missing { color: #777; } figure { display: inline-block; margin: 0 1em 1em 0; } figcaption { font-size: 13px; }
img { image-rendering: pixelated; max-width: 340px; } img.spot { width: 96px; height: 96px; } .bar { fill: #3a6ea5; }
text { font: 13px system-ui, sans-serif; fill: #222; }
"""


def as_html(report: Report) -> str:
    """The page."""
    title = f"Parity of {report.pack} in {report.runtime}"
    worst = sorted(report.pictures, key=lambda picture: picture.found.psnr_db)[:PICTURES]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="{"held" if report.ok else "breach"}">{escape(verdict(report))}</p>',
        _facts(report),
        "<h2>Stages</h2>",
        _rows(("stage", "", "compared", "limit", "worst", "why"), map(_stage, report.stages)),
        *(_broken(stage) for stage in report.stages if stage.broken),
        *_budget(report),
        *_layers(report),
        *(["<h2>Pictures, the worst first</h2>"] if worst else []),
        *map(_picture, worst),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _facts(report: Report) -> str:
    facts = {
        "model": report.model,
        "precision": report.precision,
        "arithmetic": report.arithmetic,
        "reference": report.reference,
        **{f"run {i}": run for i, run in enumerate(report.runs, 1)},
        **report.environment,
        **{f"note {i}": note for i, note in enumerate(report.notes, 1)},
    }
    return _rows(("", ""), ((escape(name), escape(words)) for name, words in facts.items()))


def _stage(stage: Stage) -> Sequence[str]:
    kind = "missing" if not stage.checks else "breach" if stage.broken else "held"
    worst = stage.worst
    told = "" if worst is None or worst.found is None else f"{decibels(worst.found.psnr_db)} at {worst}"
    why = stage.reason or ("" if stage.limit is None else stage.limit.reason)
    status = f'<span class="{kind}">{stage.status}</span>'
    return escape(stage.name), status, str(len(stage.checks)), escape(allowed(stage.limit)), escape(told), escape(why)


def _broken(stage: Stage) -> str:
    def row(check: Check) -> Sequence[str]:
        numbers = check.found
        told = "" if numbers is None else f"largest {numbers.max_abs:.3g}, mean shift {numbers.shift:+.3g}"
        return escape(str(check)), escape(check.problem), told

    left = len(stage.broken) - BROKEN
    more = f"<p>and {left} more</p>" if left > 0 else ""
    return f"<h3>{escape(stage.name)}</h3>" + _rows(("where", "what", ""), map(row, stage.broken[:BROKEN])) + more


def _budget(report: Report) -> list[str]:
    if report.budget is None:
        return []
    words = "Squared error of the final pictures by stage; the numbers are roots, in levels of 255."
    return ["<h2>Where the error is from</h2>", f"<p>{words}</p>", waterfall(report.budget)]


def _layers(report: Report) -> list[str]:
    if not report.layers:
        return []
    rows = (
        (
            escape(layer.graph),
            escape(layer.name),
            escape(layer.operator),
            escape(layer.module),
            decibels(layer.found.psnr_db),
            '<span class="breach">first to break</span>' if layer.broken else "",
        )
        for layer in report.layers
    )
    return ["<h2>Layers</h2>", _rows(("graph", "layer", "operator", "module", "", ""), rows)]


def _picture(picture: Picture) -> str:
    distances = distance(picture.restored, picture.reference)
    name = f"{picture.case}, {picture.form}: {decibels(picture.found.psnr_db)}"
    shown = [
        _figure(embedded(picture.reference), "reference"),
        _figure(embedded(picture.restored), "here"),
        _figure(embedded(heat_map(distances)), f"difference; white is {distances.max():.3g} levels"),
        f"<figure>{histogram(distances)}<figcaption>pixels by their difference</figcaption></figure>",
    ]
    spots = [_spot(picture, spot) for spot in worst_spots(distances, SPOTS) if spot.levels > 0]
    return f"<h3>{escape(name)}</h3>{''.join(shown)}<div>{''.join(spots)}</div>"


def _spot(picture: Picture, spot: Spot) -> str:
    """The same square of the reference and of the result."""
    area = slice(spot.row, spot.row + SPOT), slice(spot.column, spot.column + SPOT)
    pair = "".join(
        f'<img class="spot" src="{embedded(p[area])}" alt="">' for p in (picture.reference, picture.restored)
    )
    words = f"row {spot.row}, column {spot.column}: {spot.levels:.3g} levels"
    return f"<figure>{pair}<figcaption>{words}</figcaption></figure>"


def _figure(address: str, words: str) -> str:
    return f'<figure><img src="{address}" alt="{escape(words)}"><figcaption>{escape(words)}</figcaption></figure>'


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are HTML already."""
    first = "".join(f"<th>{cell}</th>" for cell in head)
    rest = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{first}</tr>{rest}</table>"
