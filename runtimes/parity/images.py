"""Whole restorations: the images of every variant, in both forms, tiled and whole."""

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
from ...core.restore.reference import ParityReference, ReferenceCase
from ...core.restore.restorer import Restorer
from ...core.restore.tiles import Box
from ..limits import ParityLimit
from .findings import Check, ErrorBudget, ErrorSource, ImageResult
from .measures import as_unit, breach, measure
from .variants import Variant

__all__ = [
    "ImageSet",
    "budget",
    "compare_images",
    "forms_of",
    "forms_source",
    "image_source",
    "restore_all",
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


def restore_all(variant: Variant, reference: ParityReference, threads: int | None = None) -> ImageSet:
    """Restore all recorded photos with the recorded settings."""
    restored: dict[ImageKey, Image] = {}
    problems: dict[ImageKey, str] = {}
    for form in forms_of(variant.manifest):
        cases = [case for case in reference.about.cases if form in case.calls]
        try:
            restorer = variant.restorer(form, threads)
        except PackError as error:
            problems |= {(form, case.name): str(error) for case in cases}
            continue
        for case in cases:
            try:
                restored[form, case.name] = _restored(restorer, reference, case, case.tile)
            except GraphError as error:
                problems[form, case.name] = str(error)
    return ImageSet(restored, problems)


def compare_images(given: Image, expected: Image, limit: ParityLimit, place: str) -> Check:
    """Compare two final images, in 0 to 1."""
    if given.shape != expected.shape:
        return Check("", place, f"expected an image of {expected.shape}, got {given.shape}")
    found = measure(as_unit(given), as_unit(expected))
    return Check("", place, breach(found, limit, image=True), found)


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
    return ErrorSource("picture", tuple(checks), limit), images


def task_source(shipped: ImageSet, reference: ParityReference, drop: float) -> ErrorSource:
    """The change of the PSNR to the clean photos: in the mean, which shows a bias that no single photo shows."""
    checks: list[Check] = []
    for form in dict.fromkeys(form for form, _ in shipped.restored):
        changes = [
            _change(shipped.restored[form, case.name], *map(reference.arrays.__getitem__, (case.pictures[form], clean)))
            for case, clean in ((case, case.clean) for case in reference.about.cases)
            if clean is not None and (form, case.name) in shipped.restored
        ]
        if changes:
            mean = fmean(changes)
            place = f"{form}: {mean:+.3f} dB in the mean, {min(changes):+.3f} at worst"
            problem = f"allowed is a loss of {drop:g} dB" if mean < -drop else ""
            checks.append(Check("", place, problem, change_db=mean))
    return ErrorSource("task", tuple(checks), reason="" if checks else "no clean photos were recorded")


def _change(restored: Image, reference: Image, clean: Image) -> float:
    """By how many dB `restored` is nearer to the clean photo than `reference`."""
    here, there = psnr(restored, clean), psnr(reference, clean)
    return 0.0 if here == there else here - there


def tiling_source(
    shipped: Variant, tiled: ImageSet, reference: ParityReference, limit: ParityLimit, threads: int | None = None
) -> ErrorSource:
    """Compare restorations in tiles with those of the whole photo at once, in the default form."""
    form, checks = forms_of(shipped.manifest)[-1], list[Check]()
    cut = [case for case in reference.about.cases if _is_cut(reference, case) and (form, case.name) in tiled.restored]
    if not cut:
        return ErrorSource("tiling", (), reason=_untiled(shipped.manifest))
    restorer = shipped.restorer(form, threads)
    for case in cut:
        place = f"{form}, {case.name}"
        whole = max(
            case.tile or 0, *(_padded(side, shipped.manifest) for side in reference.arrays[case.photo].shape[:2])
        )
        try:
            image = _restored(restorer, reference, case, whole)
        except GraphError as error:
            checks.append(Check("", place, str(error)))
            continue
        checks.append(compare_images(tiled.restored[form, case.name], image, limit, place))
    return ErrorSource("tiling", tuple(checks), limit)


def forms_source(
    shipped: Variant, reference: ParityReference, limit: ParityLimit, threads: int | None = None
) -> ErrorSource:
    """Compare one tile of each photo in one graph with the same tile step by step, before it is rounded to integers."""
    forms = forms_of(shipped.manifest)
    if len(forms) < 2:
        return ErrorSource("forms", (), reason=f"the pack has only the {forms[0]} form")
    checks: list[Check] = []
    try:
        restorers = {form: shipped.restorer(form, threads) for form in forms}
    except PackError as error:
        return ErrorSource("forms", (Check("", "open", str(error)),), limit)
    for case in reference.about.cases:
        try:
            split, fused = (_tile(restorers[form], reference, case) for form in forms)
        except GraphError as error:
            checks.append(Check("fused", case.name, str(error)))
            continue
        found = measure(fused, split)
        checks.append(Check("fused", f"against split, {case.name}", breach(found, limit, image=True), found))
    return ErrorSource("forms", tuple(checks), limit)


def budget(steps: Sequence[tuple[str, ImageSet]]) -> ErrorBudget | None:
    """The error of the last images, split by source; the first are the reference. None if no image is in all."""
    shared = set.intersection(*(set(images.restored) for _, images in steps))
    if not shared or len(steps) < 2:
        return None
    sources: dict[str, float] = {}
    for (_, before), (source, after) in pairwise(steps):
        sources[source] = _squares(before, after, shared)
    total = _squares(steps[0][1], steps[-1][1], shared)
    rest = total - sum(sources.values())
    roots = {source: math.sqrt(squares) for source, squares in sources.items()}
    return ErrorBudget(roots, math.sqrt(total), math.copysign(math.sqrt(abs(rest)), rest))


def _squares(a: ImageSet, b: ImageSet, places: set[ImageKey]) -> float:
    """Mean squared difference over images of equal weight, in grey levels of 0 to 255."""
    found = [measure(as_unit(b.restored[place]), as_unit(a.restored[place])).rmse for place in places]
    return float(np.mean(np.square(np.array(found) * 255)))


def _restored(restorer: Restorer, reference: ParityReference, case: ReferenceCase, tile: int | None) -> Image:
    return restorer(reference.arrays[case.photo], **case.settings, tile=tile)


def _tile(restorer: Restorer, reference: ParityReference, case: ReferenceCase) -> Batch:
    """The first tile of a photo."""
    manifest, photo = restorer.manifest, reference.arrays[case.photo]
    tiled = tiled_graphs(manifest, restorer.graphs, case.strength, case.amount)
    window = manifest.window(tiled)
    height, width = (_padded(min(side, window.edge) if window else side, manifest) for side in photo.shape[:2])
    job = prepare(manifest, restorer.graphs, tiled, photo, case.seed, case.strength, case.amount)
    return restore_tile(job, Box(0, height, 0, width))


def _padded(side: int, manifest: Manifest) -> int:
    size = manifest.size
    return padded_size(side, size.multiple_of, size.minimum)


def _is_cut(reference: ParityReference, case: ReferenceCase) -> bool:
    """Whether a photo was restored in several tiles, of a free size."""
    return case.tile is not None and case.tile < max(reference.arrays[case.photo].shape[:2])


def _untiled(manifest: Manifest) -> str:
    """Why tiles cannot be compared with the whole."""
    if manifest.window(manifest.receptive_field) is not None:
        return "the pack only has tiles of one size, with which the images were recorded"
    return "every recorded photo fits into one tile, or none was restored; record larger ones (--side)"
