"""What a pack itself brings along to be compared with, where there is no recording: its golden restorations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.arrays import Image
from ...core.errors import GraphError, PackError
from ...core.pack.manifest import Golden
from ...core.restore.restorer import Restorer, graph_names
from ...core.restore.selftest import read_golden
from .finals import forms_of
from .findings import Check, Stage
from .legs import FLOAT, Leg, Pack
from .measures import as_unit, measure
from .recording import FORMAT, About, Call, Case, Recording, Writer, facts_of, taken

__all__ = ["golden_stage", "recorded_here"]


def golden_stage(pack: Pack, shipped: Leg, threads: int | None = None) -> Stage:
    """The golden restorations of the pack, in every form, within their own tolerance: that of what it says to run."""
    told = pack.manifest.precision[shipped.target]
    if shipped.arithmetic not in (None, FLOAT) or shipped.manifest.precision[shipped.target] != told:
        return Stage("golden", (), reason="their tolerance is for the precision that the pack says to run")
    checks: list[Check] = []
    for form in forms_of(shipped.manifest):
        try:
            restorer = Restorer(shipped.manifest, shipped.open(graph_names(shipped.manifest, form), threads))
        except PackError as error:
            checks.append(Check("", form, str(error)))
            continue
        for name, golden in shipped.manifest.golden.items():
            checks.append(_golden(restorer, f"{form}, {name}", golden, pack.folder))
    return Stage("golden", tuple(checks))


def recorded_here(leg: Leg, threads: int | None = None) -> Recording:
    """What a leg makes of the golden photos, as a recording: the reference where there is no other."""
    writer, cases = Writer(), list[Case]()
    for name, golden in leg.manifest.golden.items():
        original, _, settings = read_golden(leg.folder, golden)
        photo = _deep(original)
        calls: dict[str, tuple[Call, ...]] = {}
        pictures: dict[str, str] = {}
        for form in forms_of(leg.manifest):
            restorer = Restorer(leg.manifest, leg.open(graph_names(leg.manifest, form), threads))
            picture, made = taken(restorer, photo, **settings)
            pictures[form] = writer.key(picture)
            calls[form] = tuple(
                Call(call.graph, writer.keys(call.inputs), writer.keys(call.outputs), {}, {}) for call in made
            )
        cases.append(Case(name, **settings, tile=None, photo=writer.key(photo), calls=calls, pictures=pictures))
    about = About(FORMAT, "", facts_of(leg.manifest), {}, tuple(cases))
    return Recording(about, writer.arrays, f"no recording: the golden photos in {leg}, here")


def _golden(restorer: Restorer, place: str, golden: Golden, folder: Path) -> Check:
    photo, expected, settings = read_golden(folder, golden)
    try:
        restored = restorer(photo, **settings)
    except GraphError as error:
        return Check("", place, str(error))
    levels = int(np.abs(restored.astype(np.int64) - expected.astype(np.int64)).max())
    problem = f"{levels} levels of difference, {golden.tolerance} allowed" if levels > golden.tolerance else ""
    return Check("", place, problem, measure(as_unit(restored), as_unit(expected)))


def _deep(photo: Image) -> Image:
    """The photo at 16 bits, so that its restoration is not rounded to 8."""
    return photo if photo.dtype == np.uint16 else photo.astype(np.uint16) * np.uint16(257)
