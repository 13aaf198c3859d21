"""Replays recorded graph outputs; the host code must make the recorded calls and produce the recorded image.

Tiles, noise, colour, the sampler and its levels all show in the inputs of the graphs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...core.arrays import Image
from ...core.errors import GraphError
from ...core.pack.manifest import Manifest
from ...core.restore.reference import ParityReference, ReferenceCall, ReferenceCase
from ...core.restore.restorer import Graph, Restorer
from ..limits import ParityLimit
from .findings import Check, ErrorSource, compare_arrays, scale_of
from .images import ImageSet, compare_images, forms_of

__all__ = ["pipeline_source"]

_Arrays = dict[str, NDArray[np.float32]]


def pipeline_source(manifest: Manifest, reference: ParityReference, limit: ParityLimit) -> tuple[ErrorSource, ImageSet]:
    """Compare the code around the graphs with what was recorded, the recorded answers taking the place of graphs."""
    checks: list[Check] = []
    restored: dict[tuple[str, str], Image] = {}
    for case in reference.about.cases:
        for form in (form for form in forms_of(manifest) if form in case.calls):
            image = _restored(manifest, reference, case, form, limit, checks)
            if image is not None:
                expected = reference.arrays[case.pictures[form]]
                checks.append(compare_images(image, expected, limit, f"picture, {form}, {case.name}"))
                restored[form, case.name] = image
    return ErrorSource("pipeline", checks, limit), ImageSet(restored, {})


def _restored(
    manifest: Manifest,
    reference: ParityReference,
    case: ReferenceCase,
    form: str,
    limit: ParityLimit,
    checks: list[Check],
) -> Image | None:
    """The image that the recorded outputs lead to, with the checks of all calls on the way; None after other calls."""
    where = f"{form}, {case.name}"
    queues: dict[str, list[ReferenceCall]] = {}
    for call in case.calls[form]:
        queues.setdefault(call.graph, []).append(call)
    totals = {graph: len(queue) for graph, queue in queues.items()}

    def answering(graph: str) -> Graph:
        def call(**inputs: NDArray[np.float32]) -> _Arrays:
            if not queues[graph]:
                raise GraphError(f"expected {totals[graph]} calls of the graph '{graph}' as recorded, got one more")
            number, recorded = totals[graph] - len(queues[graph]), queues[graph].pop(0)
            checks.extend(_compared(graph, number, where, inputs, reference.named(recorded.inputs), limit))
            return {name: array.copy() for name, array in reference.named(recorded.outputs).items()}

        return call

    restorer = Restorer(manifest, {graph: answering(graph) for graph in queues})
    try:
        image = restorer(reference.arrays[case.photo], **case.settings, tile=case.tile)
    except GraphError as error:
        checks.append(Check("", where, str(error)))
        return None
    for graph, left in queues.items():
        if left:
            checks.append(Check(graph, where, f"{len(left)} of the {totals[graph]} recorded calls were not made"))
    return image


def _compared(
    graph: str, number: int, where: str, given: _Arrays, expected: _Arrays, limit: ParityLimit
) -> Iterator[Check]:
    """A check of each input of a call; GraphError for inputs of other names or shapes."""
    if set(given) != set(expected):
        raise GraphError(f"{graph}, call {number}: expected {sorted(expected)} as recorded, got {sorted(given)}")
    for name, array in expected.items():
        place = f"call {number}, input {name}, {where}"
        if given[name].shape != array.shape:
            raise GraphError(
                f"{graph}, {place}: expected {list(array.shape)} as recorded, got {list(given[name].shape)}"
            )
        yield compare_arrays((graph, place), given[name], array, limit, scale_of(array), image=False)
