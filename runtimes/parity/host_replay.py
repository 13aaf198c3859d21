"""Replays recorded graph outputs; the host code must make the recorded calls and produce the recorded image.

Tiles, noise, colour, the sampler and its levels all show in the inputs of the graphs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...core.arrays import Image
from ...core.errors import GraphError
from ...core.pack.manifest import Manifest
from ...core.restore.restorer import Graph, Restorer
from ..limits import ParityLimit
from .findings import Check, ErrorSource
from .images import ImageSet, compare_images, forms_of
from .measures import breach, measure, scale_of
from .reference import ParityReference, ReferenceCall, ReferenceCase

__all__ = ["HostReplay", "pipeline_source"]


@dataclass
class HostReplay:
    """Answers the calls of one case from a reference, in turn, and compares their inputs with the recorded ones."""

    reference: ParityReference
    case: ReferenceCase
    form: str
    limit: ParityLimit
    checks: list[Check] = field(default_factory=list[Check])

    def restore(self, manifest: Manifest) -> Image | None:
        """The image that the recorded outputs lead to; None where other calls are made than were recorded."""
        queues: dict[str, list[ReferenceCall]] = {}
        for call in self.case.calls[self.form]:
            queues.setdefault(call.graph, []).append(call)
        totals = {graph: len(queue) for graph, queue in queues.items()}
        restorer = Restorer(manifest, {graph: self._answering(graph, queues[graph]) for graph in queues})
        photo = self.reference.arrays[self.case.photo]
        try:
            image = restorer(photo, **self.case.settings, tile=self.case.tile)
        except GraphError as error:
            self.checks.append(Check("", f"{self.form}, {self.case.name}", str(error)))
            return None
        for graph, left in queues.items():
            if left:
                problem = f"{len(left)} of the {totals[graph]} recorded calls were not made"
                self.checks.append(Check(graph, f"{self.form}, {self.case.name}", problem))
        return image

    def _answering(self, graph: str, queue: list[ReferenceCall]) -> Graph:
        recorded = len(queue)

        def call(**inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
            if not queue:
                raise GraphError(f"expected {recorded} calls of the graph '{graph}' as recorded, got one more")
            number, expected = recorded - len(queue), queue.pop(0)
            self._compare(graph, number, inputs, self.reference.named(expected.inputs))
            return {name: array.copy() for name, array in self.reference.named(expected.outputs).items()}

        return call

    def _compare(
        self, graph: str, number: int, given: dict[str, NDArray[np.float32]], expected: dict[str, NDArray[np.float32]]
    ) -> None:
        if set(given) != set(expected):
            raise GraphError(f"{graph}, call {number}: expected {sorted(expected)} as recorded, got {sorted(given)}")
        for name, array in expected.items():
            place = f"call {number}, input {name}, {self.form}, {self.case.name}"
            if given[name].shape != array.shape:
                raise GraphError(
                    f"{graph}, {place}: expected {list(array.shape)} as recorded, got {list(given[name].shape)}"
                )
            found = measure(given[name], array, scale_of(array))
            self.checks.append(Check(graph, place, breach(found, self.limit, image=False), found))


def pipeline_source(manifest: Manifest, reference: ParityReference, limit: ParityLimit) -> tuple[ErrorSource, ImageSet]:
    """Compare the code around the graphs with what was recorded, the recorded answers taking the place of graphs."""
    checks: list[Check] = []
    restored: dict[tuple[str, str], Image] = {}
    for case in reference.about.cases:
        for form in (form for form in forms_of(manifest) if form in case.calls):
            replay = HostReplay(reference, case, form, limit)
            image = replay.restore(manifest)
            checks += replay.checks
            if image is not None:
                expected = reference.arrays[case.pictures[form]]
                checks.append(compare_images(image, expected, limit, f"picture, {form}, {case.name}"))
                restored[form, case.name] = image
    return ErrorSource("pipeline", tuple(checks), limit), ImageSet(restored, {})
