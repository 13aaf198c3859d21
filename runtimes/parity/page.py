"""The table of packs, runtimes and precisions, which stands between marks on a page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from ...core.errors import UsageError
from ...core.files import write_text
from ...core.markdown import table
from ...core.pack.manifest import Manifest
from .. import RUNTIMES
from .findings import Report, Stage
from .legs import FLOAT, STAGES, described
from .recording import load
from .run import Wanted, compare
from .text import decibels, verdict

__all__ = ["Row", "fill", "measured", "text"]

MARKS = "<!-- table -->", "<!-- /table -->"
NOT_RUN = ("replay",)  # runtimes that compute nothing
HEAD = ("system", "pack", "runtime", "precision", "graphs", "fused/split", "pictures", "task", "reference", "")


class Row(NamedTuple):
    """One pack in one runtime and precision: what was found, or why it could not be run here."""

    system: str
    pack: str
    runtime: str
    precision: str
    report: Report | None
    reason: str


def measured(packs: Sequence[Path], recordings: Sequence[Path], threads: int | None = None) -> Iterator[Row]:
    """Every pack, and each of its tasks, in every runtime that has graphs of it, in every precision that these have.

    A recording is taken for the packs of its checkpoint; for others, what they bring along. Raises UsageError for a
    recording of no pack here, and as `compare` does.
    """
    known = {load(path).about.checkpoint: path for path in recordings}
    chosen = [
        (folder, task, manifest.of(task))
        for folder, manifest in ((folder, Manifest.load(folder)) for folder in packs)
        for task in (manifest.tasks if manifest.further else [None])
    ]
    for checkpoint in set(known) - {manifest.made_by.get("checkpoint") for *_, manifest in chosen}:
        raise UsageError(f"{known[checkpoint]} is of no pack that was given, by its checkpoint; leave it out")
    for folder, task, manifest in chosen:
        against = known.get(manifest.made_by.get("checkpoint", ""))
        for runtime, precision in _ways(manifest):
            name = manifest.name if task is None else f"{manifest.name}, {task}"
            names = (manifest.model, name, described(runtime), precision)
            wanted = Wanted(runtime, precision=precision, against=against, threads=threads, task=task)
            try:
                report = compare(folder, wanted)
            except UsageError as error:  # without the runtime, or on a processor without its arithmetic
                yield Row(*names, None, str(error))
            else:
                yield Row(*names, report, "")


def text(rows: Sequence[Row]) -> str:
    """The table, and what it was measured on."""
    lines = table([HEAD, *map(_line, rows)], left=4)
    reports = [row.report for row in rows if row.report is not None]
    facts = dict.fromkeys(_facts(report) for report in reports)
    left_out = [f"- {row.pack} in {row.runtime}, {row.precision}: not run, {row.reason}" for row in rows if row.reason]
    broken = [
        f"- {row.pack} in {row.runtime}, {row.precision}: {verdict(row.report)}"
        for row in rows
        if row.report is not None and not row.report.ok
    ]
    return "\n".join([lines, "", *(f"- {fact}" for fact in facts), *left_out, *broken])


def fill(page: Path, content: str) -> None:
    """Put `content` between the marks of a page; UsageError for a page that has none."""
    start, end = MARKS
    try:
        old = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"'{page}' cannot be read ({error}); give a page with {start} and {end} in it") from error
    new, found = re.subn(
        rf"(?<={re.escape(start)}\n).*?(?={re.escape(end)})", lambda _: f"\n{content}\n\n", old, flags=re.DOTALL
    )
    if found != 1:
        raise UsageError(f"'{page}' has no {start} ... {end}; put them where the table belongs")
    write_text(page, new)


def _ways(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """(runtime, precision) of all that can be run of a pack."""
    for runtime in RUNTIMES:
        targets = () if runtime in NOT_RUN else import_module(f"..{runtime}", __package__).TARGETS
        target = next((target for target in targets if target in manifest.precision), None)
        if target is not None:
            offered = [spec.files[target] for spec in manifest.graphs.values()]
            labels = dict.fromkeys(label for files in offered for label in files)
            # A graph that a plan does not change is in float32 beside others that are not.
            whole = all(FLOAT in files for files in offered)
            yield from ((runtime, label) for label in labels if whole or label != FLOAT)


def _line(row: Row) -> tuple[str, ...]:
    names = row.system, row.pack, row.runtime, row.precision
    if row.report is None:
        return (*names, "", "", "", "", "", "not run")
    stages = {stage.name: stage for stage in row.report.stages}
    graphs = [_worst_db(stages[name]) for name in STAGES if name in stages]
    return (
        *names,
        _told(min(graphs, default=None, key=lambda db: math.inf if db is None else db)),
        _told(_worst_db(stages.get("forms"))),
        _told(_worst_db(stages.get("picture"))),
        _mean(stages.get("task")),
        row.report.environment.get("reference device", "its golden photos"),
        "held" if row.report.ok else "BREACH",
    )


def _worst_db(stage: Stage | None) -> float | None:
    """The lowest PSNR of a stage, None where it was not measured."""
    found = [] if stage is None else [check.found.psnr_db for check in stage.checks if check.found is not None]
    return min(found, default=None)


def _told(db: float | None) -> str:
    return "-" if db is None else decibels(db)


def _mean(stage: Stage | None) -> str:
    """The mean change to the clean photos, of the form that lost most."""
    found = [] if stage is None else [check.change_db for check in stage.checks if check.change_db is not None]
    return f"{min(found):+.3f} dB" if found else "-"


def _facts(report: Report) -> str:
    """What a reader must know of where the numbers are from."""
    words = ", ".join(f"{name} {told}" for name, told in report.environment.items())
    return f"{report.reference}; {words}"
