"""Replays each recorded call of each graph with its recorded inputs, so that errors do not add up over calls."""

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
from ..limits import ParityLimit, limit_of, sharpened
from .findings import Check, ErrorSource
from .measures import breach, measure, scale_of
from .reference import ParityReference, ReferenceCall
from .variants import BASE, LIMIT_OF, Variant, VariantChain

__all__ = ["Replayed", "Site", "replay", "rounding", "scales", "sites"]

IMAGE_OUTPUTS = ("base", "restored")  # outputs that are images, which also have a limit on their mean shift
LOSSY = ("precision", "quantization")  # error sources that are judged by their effect on the image

_Outputs = dict[str, NDArray[np.float32]]


class Site(NamedTuple):
    """A call and where it comes from."""

    call: ReferenceCall
    case: str
    form: str
    number: int  # of the call among those of its graph, from 0

    def place(self, array: str) -> str:
        """In words."""
        return f"call {self.number}, {array}, {self.form}, {self.case}"


class Replayed(NamedTuple):
    """What a replay found."""

    sources: list[ErrorSource]  # those that were measured
    first: dict[str, Site]  # error source -> the first call over its limit


def replay(chain: VariantChain, reference: ParityReference, known: Manifest, threads: int | None = None) -> Replayed:
    """Compare every variant with the one before it, and the first with the reference.

    A variant that cannot be opened ends the replay: there is nothing to compare the next one with.

    Args:
        chain: The variants.
        reference: The recorded calls.
        known: The manifest that limits are read from.
        threads: For one graph call; None for the runtime's own choice.
    """
    places = [site for site in sites(reference) if site.call.graph in known.graphs]
    units, floors = scales(reference), rounding(reference)
    sources: list[ErrorSource] = []
    first: dict[str, Site] = {}
    before: dict[str, _Outputs | None] = {_id(site.call): reference.named(site.call.outputs) for site in places}
    for variant in chain.variants:
        limit = limit_of(LIMIT_OF[variant.source], known)
        try:
            graphs = variant.open(sorted({site.call.graph for site in places}), threads)
        except PackError as error:
            sources.append(ErrorSource(variant.source, (Check("", str(variant), str(error)),), limit))
            break
        shares = _shares(known, reference) if variant.source in LOSSY else {}
        outputs = {_id(site.call): site for site in places}
        answers = {key: _answer(graphs, site.call, reference) for key, site in outputs.items()}
        checks: list[Check] = []
        for key, site in outputs.items():
            measures = {name: units[site.call.graph, name] * shares.get((key, name), 1.0) for name in site.call.outputs}
            found = _compare(
                site, answers[key], before[key], measures, partial(_limit, variant, limit, floors, site.call.graph)
            )
            checks += found
            if variant.source not in first and any(check.problem for check in found):
                first[variant.source] = site
        sources.append(ErrorSource(variant.source, tuple(checks), limit))
        before = {key: None if isinstance(answer, str) else answer for key, answer in answers.items()}
    return Replayed(sources, first)


def sites(reference: ParityReference) -> Iterator[Site]:
    """Every recorded call in turn, split forms first; of calls with equal inputs the first."""
    seen: set[str] = set()
    for form in ("split", "fused"):
        for case in reference.about.cases:
            numbers: dict[str, int] = {}
            for call in case.calls.get(form, ()):
                number = numbers[call.graph] = numbers.get(call.graph, -1) + 1
                if _id(call) not in seen:
                    seen.add(_id(call))
                    yield Site(call, case.name, form, number)


def scales(reference: ParityReference) -> Mapping[tuple[str, str], float]:
    """(graph, output) -> the unit of its differences."""
    arrays: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
    for site in sites(reference):
        for name, array in reference.named(site.call.outputs).items():
            arrays.setdefault((site.call.graph, name), []).append(array)
    return {key: 1.0 if key[1] in IMAGE_OUTPUTS else scale_of(*found) for key, found in arrays.items()}


def rounding(reference: ParityReference) -> Mapping[tuple[str, str], float]:
    """(graph, output) -> the largest rounding that was recorded, in the unit of the output."""
    units, found = scales(reference), dict[tuple[str, str], float]()
    for site in sites(reference):
        for name, value in site.call.rounding.items():
            key = site.call.graph, name
            found[key] = max(found.get(key, 0.0), value / units[key])
    return found


def _limit(
    variant: Variant, limit: ParityLimit, floors: Mapping[tuple[str, str], float], graph: str, output: str
) -> ParityLimit:
    """The rounding of the reference limits only what is computed in the same precision."""
    if variant.source != "conversion" or variant.runtime != BASE or (graph, output) not in floors:
        return limit
    return sharpened(limit, floors[graph, output])


def _shares(known: Manifest, reference: ParityReference) -> Mapping[tuple[str, str], float]:
    """(call, output) -> how many units of a prediction make one unit of the image.

    The smaller the share of the prediction that the clean state takes at the step's noise level, the more.
    """
    if SYSTEMS[known.model].vector:
        return {}
    steps = [site.call for site in sites(reference) if site.call.graph == "denoise"]
    scale = known.residual_scale * known.gain * _amplitude(reference)
    return {
        (_id(call), known.predicts): 1 / (scale * _share(known, reference.arrays[call.inputs["t"]])) for call in steps
    }


def _amplitude(reference: ParityReference) -> float:
    """The largest root mean square, over cases, of the map that scales the residual per pixel; 1 without a map."""
    found = [
        scale_of(*(reference.arrays[call.outputs["amplitude"]] for call in calls), least=1e-6)
        for case in reference.about.cases
        if (calls := [call for call in case.calls.get("split", ()) if "amplitude" in call.outputs])
    ]
    return max(found, default=1.0)


def _share(known: Manifest, t: NDArray[np.float32]) -> float:
    """How far the clean state moves if the prediction at the time `t` moves by 1."""
    level = known.levels[int(np.argmin(np.abs(np.array(known.times) - t[0])))]
    clean, _ = PREDICTIONS[known.predicts](0.0, 1.0, level)
    return abs(clean)


def _answer(graphs: Mapping[str, Graph], call: ReferenceCall, reference: ParityReference) -> _Outputs | str:
    """What a graph returns for recorded inputs, or what went wrong."""
    try:
        return graphs[call.graph](**reference.named(call.inputs))
    except GraphError as error:
        return str(error)


def _compare(
    site: Site,
    answer: _Outputs | str,
    before: _Outputs | None,
    units: Mapping[str, float],
    limit_of_output: Callable[[str], ParityLimit],
) -> Sequence[Check]:
    graph = site.call.graph
    if isinstance(answer, str):
        return [Check(graph, site.place("no output"), answer)]
    if before is None:
        return []
    checks: list[Check] = []
    for name, expected in before.items():
        if name not in answer or answer[name].shape != expected.shape:
            checks.append(Check(graph, site.place(name), "the output is missing, or has another shape"))
            continue
        found = measure(answer[name], expected, units[name])
        checks.append(
            Check(graph, site.place(name), breach(found, limit_of_output(name), image=name in IMAGE_OUTPUTS), found)
        )
    return checks


def _id(call: ReferenceCall) -> str:
    return f"{call.graph} {sorted(call.inputs.items())}"
