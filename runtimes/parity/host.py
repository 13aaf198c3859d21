"""The code around the graphs: given the recorded answers it must ask the recorded questions, and paint the same.

Tiles, noise, colour, the sampler and its levels are all in what the graphs are called with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...core.arrays import Image
from ...core.errors import GraphError
from ...core.pack.manifest import Manifest
from ...core.restore.restorer import Graph, Restorer
from .findings import Check
from .limits import Limit, breach
from .measures import as_unit, measure, scale_of
from .recording import Call, Case, Recording

__all__ = ["Replay", "compare_pictures"]


@dataclass
class Replay:
    """Answers calls from a recording, in turn, and keeps how far what it was asked is from what was recorded."""

    recording: Recording
    case: Case
    form: str
    limit: Limit
    checks: list[Check] = field(default_factory=list[Check])

    def restore(self, manifest: Manifest) -> Image | None:
        """The picture that comes of the recorded answers; None where other calls are made than were recorded."""
        queues: dict[str, list[Call]] = {}
        for call in self.case.calls[self.form]:
            queues.setdefault(call.graph, []).append(call)
        totals = {graph: len(queue) for graph, queue in queues.items()}
        restorer = Restorer(manifest, {graph: self._answering(graph, queues[graph]) for graph in queues})
        photo = self.recording.arrays[self.case.photo]
        try:
            picture = restorer(photo, **self.case.settings, tile=self.case.tile)
        except GraphError as error:
            self.checks.append(Check("", f"{self.form}, {self.case.name}", str(error)))
            return None
        for graph, left in queues.items():
            if left:
                problem = f"{len(left)} of the {totals[graph]} recorded calls were not made"
                self.checks.append(Check(graph, f"{self.form}, {self.case.name}", problem))
        return picture

    def _answering(self, graph: str, queue: list[Call]) -> Graph:
        recorded = len(queue)

        def call(**inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
            if not queue:
                raise GraphError(f"the graph '{graph}' was called more often than the {recorded} times recorded")
            number, expected = recorded - len(queue), queue.pop(0)
            self._compare(graph, number, inputs, self.recording.named(expected.inputs))
            return {name: array.copy() for name, array in self.recording.named(expected.outputs).items()}

        return call

    def _compare(
        self, graph: str, number: int, given: dict[str, NDArray[np.float32]], expected: dict[str, NDArray[np.float32]]
    ) -> None:
        if set(given) != set(expected):
            raise GraphError(f"{graph}, call {number}: given {sorted(given)}, recorded {sorted(expected)}")
        for name, array in expected.items():
            place = f"call {number}, input {name}, {self.form}, {self.case.name}"
            if given[name].shape != array.shape:
                raise GraphError(f"{graph}, {place}: given {list(given[name].shape)}, recorded {list(array.shape)}")
            found = measure(given[name], array, scale_of(array))
            self.checks.append(Check(graph, place, breach(found, self.limit, picture=False), found))


def compare_pictures(given: Image, expected: Image, limit: Limit, place: str) -> Check:
    """Final pictures, in 0 to 1."""
    if given.shape != expected.shape:
        return Check("", place, f"the picture is {given.shape}, expected {expected.shape}")
    found = measure(as_unit(given), as_unit(expected))
    return Check("", place, breach(found, limit, picture=True), found)
