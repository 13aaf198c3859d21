"""Whole restorations: pictures of every leg, in both forms, tiled and whole."""

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
from ...core.pack.manifest import Manifest
from ...core.pack.size import padded_size
from ...core.restore.pipeline import prepare, restore_tile, tiled_graphs
from ...core.restore.restorer import Restorer, graph_names
from ...core.restore.tiles import Box
from .findings import Budget, Check, Picture, Stage
from .host import compare_pictures
from .legs import Leg
from .limits import Limit, breach
from .measures import as_unit, measure
from .recording import Case, Recording

__all__ = ["Pictures", "budget", "forms_of", "forms_stage", "paint", "picture_stage", "task_stage", "tiling_stage"]

Place = tuple[str, str]  # (form, case)


class Pictures(NamedTuple):
    """What came of the recorded photos: pictures, and where there is none what went wrong."""

    restored: Mapping[Place, Image]
    problems: Mapping[Place, str]


def forms_of(manifest: Manifest) -> list[str]:
    """The forms that a pack has."""
    return [form for form, graph in (("split", "denoise"), ("fused", "fused")) if graph in manifest.graphs]


def paint(leg: Leg, recording: Recording, threads: int | None = None) -> Pictures:
    """Restore all recorded photos as they were when they were recorded."""
    restored: dict[Place, Image] = {}
    problems: dict[Place, str] = {}
    for form in forms_of(leg.manifest):
        cases = [case for case in recording.about.cases if form in case.calls]
        try:
            restorer = _restorer(leg, form, threads)
        except PackError as error:
            problems |= {(form, case.name): str(error) for case in cases}
            continue
        for case in cases:
            try:
                restored[form, case.name] = _restored(restorer, recording, case, case.tile)
            except GraphError as error:
                problems[form, case.name] = str(error)
    return Pictures(restored, problems)


def picture_stage(shipped: Pictures, recording: Recording, limit: Limit) -> tuple[Stage, list[Picture]]:
    """Final pictures against the recorded ones."""
    checks = [Check("", f"{form}, {case}", why) for (form, case), why in shipped.problems.items()]
    pictures: list[Picture] = []
    for case in recording.about.cases:
        for form in case.pictures:
            if (form, case.name) not in shipped.restored:
                continue
            reference, restored = recording.arrays[case.pictures[form]], shipped.restored[form, case.name]
            check = compare_pictures(restored, reference, limit, f"{form}, {case.name}")
            checks.append(check)
            if check.found is not None:
                pictures.append(Picture(case.name, form, reference, restored, check.found))
    return Stage("picture", tuple(checks), limit), pictures


def task_stage(shipped: Pictures, recording: Recording, drop: float) -> Stage:
    """What is lost of the distance to the clean photos: in the mean, which shows a bias that no single photo does."""
    checks: list[Check] = []
    for form in dict.fromkeys(form for form, _ in shipped.restored):
        changes = [
            _change(shipped.restored[form, case.name], *map(recording.arrays.__getitem__, (case.pictures[form], clean)))
            for case, clean in ((case, case.clean) for case in recording.about.cases)
            if clean is not None and (form, case.name) in shipped.restored
        ]
        if changes:
            mean = fmean(changes)
            place = f"{form}: {mean:+.3f} dB in the mean, {min(changes):+.3f} at worst"
            problem = f"at most {drop:g} dB may be lost" if mean < -drop else ""
            checks.append(Check("", place, problem, change_db=mean))
    return Stage("task", tuple(checks), reason="" if checks else "no clean photos were recorded")


def _change(restored: Image, reference: Image, clean: Image) -> float:
    """dB by which one is nearer to the clean photo than the other."""
    here, there = psnr(restored, clean), psnr(reference, clean)
    return 0.0 if here == there else here - there


def tiling_stage(
    shipped: Leg, tiled: Pictures, recording: Recording, limit: Limit, threads: int | None = None
) -> Stage:
    """Restorations in tiles against those of the whole photo at once, in the form that is run by default."""
    form, checks = forms_of(shipped.manifest)[-1], list[Check]()
    cut = [case for case in recording.about.cases if _is_cut(recording, case) and (form, case.name) in tiled.restored]
    if not cut:
        return Stage("tiling", (), reason=_untiled(shipped.manifest))
    restorer = _restorer(shipped, form, threads)
    for case in cut:
        place = f"{form}, {case.name}"
        whole = _whole_edge(recording, case, shipped.manifest)
        try:
            picture = _restored(restorer, recording, case, whole)
        except GraphError as error:
            checks.append(Check("", place, str(error)))
            continue
        checks.append(compare_pictures(tiled.restored[form, case.name], picture, limit, place))
    return Stage("tiling", tuple(checks), limit)


def forms_stage(shipped: Leg, recording: Recording, limit: Limit, threads: int | None = None) -> Stage:
    """One tile of each photo in one graph against the same tile step by step, before it is rounded to levels."""
    forms = forms_of(shipped.manifest)
    if len(forms) < 2:
        return Stage("forms", (), reason=f"the pack has the {forms[0]} form alone")
    checks: list[Check] = []
    try:
        restorers = {form: _restorer(shipped, form, threads) for form in forms}
    except PackError as error:
        return Stage("forms", (Check("", "open", str(error)),), limit)
    for case in recording.about.cases:
        try:
            split, fused = (_tile(restorers[form], recording, case) for form in forms)
        except GraphError as error:
            checks.append(Check("fused", case.name, str(error)))
            continue
        found = measure(fused, split)
        checks.append(Check("fused", f"against split, {case.name}", breach(found, limit, picture=True), found))
    return Stage("forms", tuple(checks), limit)


def budget(steps: Sequence[tuple[str, Pictures]]) -> Budget | None:
    """The error of the last pictures, split by stage; the first are the reference. None where no picture is in all."""
    shared = set.intersection(*(set(pictures.restored) for _, pictures in steps))
    if not shared or len(steps) < 2:
        return None
    stages: dict[str, float] = {}
    for (_, before), (stage, after) in pairwise(steps):
        stages[stage] = _squares(before, after, shared)
    total = _squares(steps[0][1], steps[-1][1], shared)
    rest = total - sum(stages.values())
    roots = {stage: math.sqrt(squares) for stage, squares in stages.items()}
    return Budget(roots, math.sqrt(total), math.copysign(math.sqrt(abs(rest)), rest))


def _squares(a: Pictures, b: Pictures, places: set[Place]) -> float:
    """Mean squared difference over pictures of equal weight, in levels of 0 to 255."""
    found = [measure(as_unit(b.restored[place]), as_unit(a.restored[place])).rmse for place in places]
    return float(np.mean(np.square(np.array(found) * 255)))


def _restorer(leg: Leg, form: str, threads: int | None) -> Restorer:
    return Restorer(leg.manifest, leg.open(graph_names(leg.manifest, form), threads))


def _restored(restorer: Restorer, recording: Recording, case: Case, tile: int | None) -> Image:
    return restorer(recording.arrays[case.photo], **case.settings, tile=tile)


def _tile(restorer: Restorer, recording: Recording, case: Case) -> Batch:
    """The first tile of a photo."""
    manifest, photo = restorer.manifest, recording.arrays[case.photo]
    stages = tiled_graphs(manifest, restorer.graphs, case.strength, case.amount)
    window = manifest.window(stages)
    height, width = (_padded(min(side, window.edge) if window else side, manifest) for side in photo.shape[:2])
    job = prepare(manifest, restorer.graphs, stages, photo, case.seed, case.strength, case.amount)
    return restore_tile(job, Box(0, height, 0, width))


def _padded(side: int, manifest: Manifest) -> int:
    size = manifest.size
    return padded_size(side, size.multiple_of, size.minimum)


def _is_cut(recording: Recording, case: Case) -> bool:
    """Whether a photo was restored in more tiles than one whose size is free."""
    return case.tile is not None and case.tile < max(recording.arrays[case.photo].shape[:2])


def _whole_edge(recording: Recording, case: Case, manifest: Manifest) -> int:
    photo = recording.arrays[case.photo]
    assert case.tile is not None
    return max(case.tile, *(_padded(side, manifest) for side in photo.shape[:2]))


def _untiled(manifest: Manifest) -> str:
    """Why tiles cannot be held against the whole."""
    if manifest.window(manifest.receptive_field) is not None:
        return "the pack gives its result on tiles of one size alone, which the pictures were recorded with"
    return "every recorded photo fits into one tile, or none was restored; record larger ones (--side)"
