"""Each recorded call of each graph again, with its recorded inputs: errors of one call are not passed to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import GraphError, PackError
from ...core.pack.manifest import Manifest
from ...core.pack.systems import SYSTEMS
from ...core.restore.restorer import Graph
from ...core.sampling.samplers import PREDICTIONS
from .findings import Check, Stage
from .legs import BASE, CLASSES, Chain, Leg
from .limits import Limit, breach, limit_of, sharpened
from .measures import measure, scale_of
from .recording import Call, Recording

__all__ = ["PICTURES", "Replayed", "Site", "replay", "rounding", "scales", "sites"]

PICTURES = ("base", "restored")  # outputs that are pictures, which are held to a mean shift as well
LOSSY = ("precision", "quantization")  # stages that are judged by what they do to the picture, not to the numbers

_Outputs = dict[str, NDArray[np.float32]]


class Site(NamedTuple):
    """A call and where it is from; `number` counts the calls of its graph from 0."""

    call: Call
    case: str
    form: str
    number: int

    def place(self, array: str) -> str:
        """In words."""
        return f"call {self.number}, {array}, {self.form}, {self.case}"


class Replayed(NamedTuple):
    """The stages that were measured; and for each that broke, where it first did so."""

    stages: list[Stage]
    first: dict[str, Site]


def replay(chain: Chain, recording: Recording, known: Manifest, threads: int | None = None) -> Replayed:
    """Hold every leg against the one before it, and the first against the recording.

    known: the manifest that limits are read from. After a leg that cannot be opened there is nothing to hold the next
    one against: it and the rest are not measured.
    """
    places = [site for site in sites(recording) if site.call.graph in known.graphs]
    units, floors = scales(recording), rounding(recording)
    stages: list[Stage] = []
    first: dict[str, Site] = {}
    before: dict[str, _Outputs | None] = {_id(site.call): recording.named(site.call.outputs) for site in places}
    for leg in chain.legs:
        limit = limit_of(CLASSES[leg.stage], known)
        try:
            graphs = leg.open(sorted({site.call.graph for site in places}), threads)
        except PackError as error:
            stages.append(Stage(leg.stage, (Check("", str(leg), str(error)),), limit))
            break
        shares = _shares(known, recording) if leg.stage in LOSSY else {}
        outputs = {_id(site.call): site for site in places}
        answers = {key: _answer(graphs, site.call, recording) for key, site in outputs.items()}
        checks: list[Check] = []
        for key, site in outputs.items():
            measures = {name: units[site.call.graph, name] * shares.get((key, name), 1.0) for name in site.call.outputs}
            found = _compare(
                site, answers[key], before[key], measures, partial(_limit, leg, limit, floors, site.call.graph)
            )
            checks += found
            if leg.stage not in first and any(check.problem for check in found):
                first[leg.stage] = site
        stages.append(Stage(leg.stage, tuple(checks), limit))
        before = {key: None if isinstance(answer, str) else answer for key, answer in answers.items()}
    return Replayed(stages, first)


def sites(recording: Recording) -> Iterator[Site]:
    """Every recorded call in turn, but those whose inputs came before; split forms first."""
    seen: set[str] = set()
    for form in ("split", "fused"):
        for case in recording.about.cases:
            numbers: dict[str, int] = {}
            for call in case.calls.get(form, ()):
                number = numbers[call.graph] = numbers.get(call.graph, -1) + 1
                if _id(call) not in seen:
                    seen.add(_id(call))
                    yield Site(call, case.name, form, number)


def scales(recording: Recording) -> Mapping[tuple[str, str], float]:
    """(graph, output) -> the unit that its differences are told in."""
    arrays: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
    for site in sites(recording):
        for name, array in recording.named(site.call.outputs).items():
            arrays.setdefault((site.call.graph, name), []).append(array)
    return {key: 1.0 if key[1] in PICTURES else scale_of(*found) for key, found in arrays.items()}


def rounding(recording: Recording) -> Mapping[tuple[str, str], float]:
    """(graph, output) -> the largest rounding that was recorded, in the unit of the output."""
    units, found = scales(recording), dict[tuple[str, str], float]()
    for site in sites(recording):
        for name, value in site.call.rounding.items():
            key = site.call.graph, name
            found[key] = max(found.get(key, 0.0), value / units[key])
    return found


def _limit(leg: Leg, limit: Limit, floors: Mapping[tuple[str, str], float], graph: str, output: str) -> Limit:
    """Only what is computed in the same numbers as the reference can be held to its rounding."""
    if leg.stage != "conversion" or leg.runtime != BASE or (graph, output) not in floors:
        return limit
    return sharpened(limit, floors[graph, output])


def _shares(known: Manifest, recording: Recording) -> Mapping[tuple[str, str], float]:
    """(call, output) -> how many units of a prediction make one of the picture.

    Of a residual many, and the more the less of it the clean state takes at the level of the step: the last ones.
    """
    if SYSTEMS[known.model].vector:
        return {}
    steps = [site.call for site in sites(recording) if site.call.graph == "denoise"]
    scale = known.residual_scale * known.gain * _amplitude(recording)
    return {
        (_id(call), known.predicts): 1 / (scale * _taken(known, recording.arrays[call.inputs["t"]])) for call in steps
    }


def _amplitude(recording: Recording) -> float:
    """The root mean square, in the case where it is largest, of what a residual is scaled by pixel by pixel, or 1."""
    found = [
        scale_of(*(recording.arrays[call.outputs["amplitude"]] for call in calls), least=1e-6)
        for case in recording.about.cases
        if (calls := [call for call in case.calls.get("split", ()) if "amplitude" in call.outputs])
    ]
    return max(found, default=1.0)


def _taken(known: Manifest, t: NDArray[np.float32]) -> float:
    """How far the clean state moves where what is predicted at the time `t` moves by 1."""
    level = known.levels[int(np.argmin(np.abs(np.array(known.times) - t[0])))]
    clean, _ = PREDICTIONS[known.predicts](0.0, 1.0, level)
    return abs(clean)


def _answer(graphs: Mapping[str, Graph], call: Call, recording: Recording) -> _Outputs | str:
    """What a graph gives for recorded inputs; what went wrong where it gives nothing."""
    try:
        return graphs[call.graph](**recording.named(call.inputs))
    except GraphError as error:
        return str(error)


def _compare(
    site: Site,
    answer: _Outputs | str,
    before: _Outputs | None,
    units: Mapping[str, float],
    limit_of_output: Callable[[str], Limit],
) -> Sequence[Check]:
    graph = site.call.graph
    if isinstance(answer, str):
        return [Check(graph, site.place("no output"), answer)]
    if before is None:
        return []
    checks: list[Check] = []
    for name, expected in before.items():
        if name not in answer or answer[name].shape != expected.shape:
            checks.append(Check(graph, site.place(name), "the output is missing, or of another shape"))
            continue
        found = measure(answer[name], expected, units[name])
        checks.append(
            Check(graph, site.place(name), breach(found, limit_of_output(name), picture=name in PICTURES), found)
        )
    return checks


def _id(call: Call) -> str:
    return f"{call.graph} {sorted(call.inputs.items())}"
