"""The golden restorations of a pack: checked themselves, and the reference where there is no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.arrays import Image
from ...core.errors import GraphError, PackError
from ...core.pack.manifest import Golden
from ...core.restore.restorer import Restorer
from ...core.restore.selftest import read_golden
from .findings import Check, ErrorSource
from .images import forms_of
from .measures import as_unit, measure
from .reference import (
    REFERENCE_FORMAT,
    ParityReference,
    ReferenceCall,
    ReferenceCase,
    ReferenceHeader,
    ReferenceWriter,
    facts_of,
    record_calls,
)
from .variants import FP32, PackFolder, Variant

__all__ = ["golden_source", "recorded_here"]


def golden_source(pack: PackFolder, shipped: Variant, threads: int | None = None) -> ErrorSource:
    """Check the golden restorations in every form, within their tolerance, which is for the pack's own precision."""
    own = pack.manifest.precision[shipped.target]
    if shipped.arithmetic not in (None, FP32) or shipped.manifest.precision[shipped.target] != own:
        return ErrorSource("golden", (), reason="their tolerance is for the pack's own precision")
    checks: list[Check] = []
    for form in forms_of(shipped.manifest):
        try:
            restorer = shipped.restorer(form, threads)
        except PackError as error:
            checks.append(Check("", form, str(error)))
            continue
        for name, golden in shipped.manifest.golden.items():
            checks.append(_golden(restorer, f"{form}, {name}", golden, pack.folder))
    return ErrorSource("golden", tuple(checks))


def recorded_here(variant: Variant, threads: int | None = None) -> ParityReference:
    """What a variant makes of the golden photos, as a reference."""
    writer, cases = ReferenceWriter(), list[ReferenceCase]()
    for name, golden in variant.manifest.golden.items():
        original, _, settings = read_golden(variant.folder, golden)
        photo = _deep(original)
        calls: dict[str, tuple[ReferenceCall, ...]] = {}
        pictures: dict[str, str] = {}
        for form in forms_of(variant.manifest):
            image, made = record_calls(variant.restorer(form, threads), photo, **settings)
            pictures[form] = writer.key(image)
            calls[form] = tuple(
                ReferenceCall(call.graph, writer.keys(call.inputs), writer.keys(call.outputs), {}, {}) for call in made
            )
        case = ReferenceCase(name, **settings, tile=None, photo=writer.key(photo), calls=calls, pictures=pictures)
        cases.append(case)
    about = ReferenceHeader(REFERENCE_FORMAT, "", facts_of(variant.manifest), {}, tuple(cases))
    return ParityReference(about, writer.arrays, f"the golden photos in {variant}, here (no reference was given)")


def _golden(restorer: Restorer, place: str, golden: Golden, folder: Path) -> Check:
    photo, expected, settings = read_golden(folder, golden)
    try:
        restored = restorer(photo, **settings)
    except GraphError as error:
        return Check("", place, str(error))
    levels = int(np.abs(restored.astype(np.int64) - expected.astype(np.int64)).max())
    problem = f"off by {levels}, allowed are {golden.tolerance}" if levels > golden.tolerance else ""
    return Check("", place, problem, measure(as_unit(restored), as_unit(expected)))


def _deep(photo: Image) -> Image:
    """The photo at 16 bits, so that its restoration is not rounded to 8."""
    return photo if photo.dtype == np.uint16 else photo.astype(np.uint16) * np.uint16(257)
