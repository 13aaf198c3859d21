"""Whole restorations: the images of every variant, in both forms, tiled and whole, and the golden ones of the pack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ...core.arrays import Batch, Image
from ...core.errors import GraphError, PackError
from ...core.metrics.similarity import psnr
from ...core.pack.manifest import Manifest, padded_size
from ...core.restore.pipeline import prepare, restore_tile, tiled_graphs
from ...core.restore.reference import (
    REFERENCE_FORMAT,
    ParityReference,
    ReferenceCall,
    ReferenceCase,
    ReferenceHeader,
    ReferenceWriter,
    facts_of,
    record_calls,
)
from ...core.restore.restorer import Restorer
from ...core.restore.selftest import read_golden
from ...core.restore.tiles import Box
from ..limits import ParityLimit
from .findings import Check, ErrorBudget, ErrorSource, ImageResult, as_unit, compare_arrays, measure
from .variants import FP32, PackFolder, Variant

__all__ = [
    "ImageSet",
    "budget",
    "compare_images",
    "forms_of",
    "forms_source",
    "golden_source",
    "image_source",
    "recorded_here",
    "restore_all",
    "steps_source",
    "task_source",
    "tiling_source",
]

ImageKey = tuple[str, str]  # (form, case)


class ImageSet(NamedTuple):
    """What one variant makes of the recorded photos."""

    restored: Mapping[ImageKey, Image]
    problems: Mapping[ImageKey, str]  # what went wrong where there is no image


def forms_of(manifest: Manifest) -> list[str]:
    """The forms that a pack has."""
    return [form for form, graph in (("split", "denoise"), ("fused", "fused")) if graph in manifest.graphs]


def restore_all(variant: Variant, reference: ParityReference) -> ImageSet:
    """Restore all recorded photos with the recorded settings."""
    restored: dict[ImageKey, Image] = {}
    problems: dict[ImageKey, str] = {}
    for form in forms_of(variant.manifest):
        for case in (case for case in reference.about.cases if form in case.calls):
            photo = reference.arrays[case.photo]
            try:
                restored[form, case.name] = variant.restorer(form)(photo, **case.settings, tile=case.tile)
            except (GraphError, PackError) as error:
                problems[form, case.name] = str(error)
    return ImageSet(restored, problems)


def compare_images(given: Image, expected: Image, limit: ParityLimit, place: str) -> Check:
    """Compare two final images, in 0 to 1."""
    if given.shape != expected.shape:
        return Check("", place, f"expected an image of {expected.shape}, got {given.shape}")
    return compare_arrays(("", place), as_unit(given), as_unit(expected), limit)


def image_source(
    shipped: ImageSet, reference: ParityReference, limit: ParityLimit
) -> tuple[ErrorSource, list[ImageResult]]:
    """Compare the final images with the recorded ones."""
    checks = [Check("", f"{form}, {case}", why) for (form, case), why in shipped.problems.items()]
    images: list[ImageResult] = []
    for case in reference.about.cases:
        for form in case.pictures:
            if (form, case.name) not in shipped.restored:
                continue
            expected, restored = reference.arrays[case.pictures[form]], shipped.restored[form, case.name]
            check = compare_images(restored, expected, limit, f"{form}, {case.name}")
            checks.append(check)
            if check.found is not None:
                images.append(ImageResult(case.name, form, expected, restored, check.found))
    return ErrorSource("picture", checks, limit), images


def task_source(shipped: ImageSet, reference: ParityReference, drop: float) -> ErrorSource:
    """The change of the PSNR to the clean photos: in the mean, which shows a bias that no single photo shows."""
    checks: list[Check] = []
    for form in dict.fromkeys(form for form, _ in shipped.restored):
        changes: list[float] = []
        for case in reference.about.cases:
            if case.clean is not None and (form, case.name) in shipped.restored:
                images = shipped.restored[form, case.name], reference.arrays[case.pictures[form]]
                here, there = (psnr(image, reference.arrays[case.clean]) for image in images)
                changes.append(0.0 if here == there else here - there)  # both may be infinite
        if changes:
            mean = fmean(changes)
            place = f"{form}: {mean:+.3f} dB in the mean, {min(changes):+.3f} at worst"
            problem = f"allowed is a loss of {drop:g} dB" if mean < -drop else ""
            checks.append(Check("", place, problem, change_db=mean))
    return ErrorSource("task", checks, reason="" if checks else "no clean photos were recorded")


def tiling_source(shipped: Variant, tiled: ImageSet, reference: ParityReference, limit: ParityLimit) -> ErrorSource:
    """Compare restorations in tiles with those of the whole photo at once, in the default form."""
    form, checks = forms_of(shipped.manifest)[-1], list[Check]()
    for case in reference.about.cases:
        photo = reference.arrays[case.photo]
        if case.tile is None or case.tile >= max(photo.shape[:2]) or (form, case.name) not in tiled.restored:
            continue
        place = f"{form}, {case.name}"
        whole = max(case.tile, *(_padded(side, shipped.manifest) for side in photo.shape[:2]))
        try:
            image = shipped.restorer(form)(photo, **case.settings, tile=whole)
        except GraphError as error:
            checks.append(Check("", place, str(error)))
            continue
        checks.append(compare_images(tiled.restored[form, case.name], image, limit, place))
    if checks:
        return ErrorSource("tiling", checks, limit)
    reason = "every recorded photo fits into one tile, or none was restored; record larger ones (--side)"
    if shipped.manifest.window(shipped.manifest.receptive_field) is not None:
        reason = "the pack only has tiles of one size, with which the images were recorded"
    return ErrorSource("tiling", (), reason=reason)


def forms_source(shipped: Variant, reference: ParityReference, limit: ParityLimit) -> ErrorSource:
    """Compare one tile of each photo in one graph with the same tile step by step, before it is rounded to integers."""
    forms = forms_of(shipped.manifest)
    if len(forms) < 2:
        return ErrorSource("forms", (), reason=f"the pack has only the {forms[0]} form")
    try:
        restorers = [shipped.restorer(form) for form in forms]
    except PackError as error:
        return ErrorSource("forms", [Check("", "open", str(error))], limit)
    checks: list[Check] = []
    for case in reference.about.cases:
        try:
            split, fused = (_first_tile(restorer, reference, case) for restorer in restorers)
        except GraphError as error:
            checks.append(Check("fused", case.name, str(error)))
            continue
        checks.append(compare_arrays(("fused", f"against split, {case.name}"), fused, split, limit))
    return ErrorSource("forms", checks, limit)


def steps_source(reference: ParityReference, form: str) -> ErrorSource:
    """Compare the model with its teacher, without a limit: fewer steps change an image on purpose."""
    checks: list[Check] = []
    for case in reference.about.cases:
        if case.teacher is not None:
            mine, teacher = (as_unit(reference.arrays[key]) for key in (case.pictures[form], case.teacher))
            checks.append(Check("", f"against the teacher, {case.name}", "", measure(mine, teacher)))
    return ErrorSource("steps", checks, reason="" if checks else "no teacher was recorded (--teacher)")


def budget(steps: Sequence[tuple[str, ImageSet]]) -> ErrorBudget | None:
    """The error of the last images, split by source; the first are the reference. None if no image is in all."""
    shared = set.intersection(*(set(images.restored) for _, images in steps))
    if not shared or len(steps) < 2:
        return None
    sources = {source: _squares(before, after, shared) for (_, before), (source, after) in pairwise(steps)}
    total = _squares(steps[0][1], steps[-1][1], shared)
    rest = total - sum(sources.values())
    roots = {source: math.sqrt(squares) for source, squares in sources.items()}
    return ErrorBudget(roots, math.sqrt(total), math.copysign(math.sqrt(abs(rest)), rest))


def _squares(a: ImageSet, b: ImageSet, places: set[ImageKey]) -> float:
    """Mean squared difference over images of equal weight, in grey levels of 0 to 255."""
    found = [measure(as_unit(b.restored[place]), as_unit(a.restored[place])).rmse for place in places]
    return float(np.mean(np.square(np.array(found) * 255)))


def _first_tile(restorer: Restorer, reference: ParityReference, case: ReferenceCase) -> Batch:
    manifest, photo = restorer.manifest, reference.arrays[case.photo]
    tiled = tiled_graphs(manifest, restorer.graphs, case.strength, case.amount)
    window = manifest.window(tiled)
    height, width = (_padded(min(side, window.edge) if window else side, manifest) for side in photo.shape[:2])
    job = prepare(manifest, restorer.graphs, tiled, photo, case.seed, case.strength, case.amount)
    return restore_tile(job, Box(0, height, 0, width))


def _padded(side: int, manifest: Manifest) -> int:
    return padded_size(side, manifest.size.multiple_of, manifest.size.minimum)


def golden_source(pack: PackFolder, shipped: Variant) -> ErrorSource:
    """Check the golden restorations in every form, within their tolerance, which is for the pack's own precision."""
    own = pack.manifest.precision[shipped.target]
    if shipped.arithmetic not in (None, FP32) or shipped.manifest.precision[shipped.target] != own:
        return ErrorSource("golden", (), reason="their tolerance is for the pack's own precision")
    checks: list[Check] = []
    for form in forms_of(shipped.manifest):
        try:
            restorer = shipped.restorer(form)
        except PackError as error:
            checks.append(Check("", form, str(error)))
            continue
        for name, golden in shipped.manifest.golden.items():
            place = f"{form}, {name}"
            photo, expected, settings = read_golden(pack.folder, golden)
            try:
                restored = restorer(photo, **settings)
            except GraphError as error:
                checks.append(Check("", place, str(error)))
                continue
            off = int(np.abs(restored.astype(np.int64) - expected.astype(np.int64)).max())
            problem = f"off by {off}, allowed are {golden.tolerance}" if off > golden.tolerance else ""
            checks.append(Check("", place, problem, measure(as_unit(restored), as_unit(expected))))
    return ErrorSource("golden", checks)


def recorded_here(variant: Variant) -> ParityReference:
    """What a variant makes of the golden photos, as a reference where there is no other."""
    writer, cases = ReferenceWriter(), list[ReferenceCase]()
    for name, golden in variant.manifest.golden.items():
        photo, _, settings = read_golden(variant.folder, golden)
        if photo.dtype != np.uint16:  # so that the restoration is not rounded to 8 bits
            photo = photo.astype(np.uint16) * np.uint16(257)
        calls: dict[str, tuple[ReferenceCall, ...]] = {}
        pictures: dict[str, str] = {}
        for form in forms_of(variant.manifest):
            image, made = record_calls(variant.restorer(form), photo, **settings)
            pictures[form] = writer.key(image)
            calls[form] = tuple(
                ReferenceCall(call.graph, writer.keys(call.inputs), writer.keys(call.outputs), {}, {}) for call in made
            )
        case = ReferenceCase(name, **settings, tile=None, photo=writer.key(photo), calls=calls, pictures=pictures)
        cases.append(case)
    about = ReferenceHeader(REFERENCE_FORMAT, "", facts_of(variant.manifest), {}, tuple(cases))
    return ParityReference(about, writer.arrays, f"the golden photos in {variant}, here (no reference was given)")
