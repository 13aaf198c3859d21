"""Replays recorded calls: those of each graph, and those of the code around the graphs.

Graphs get the recorded inputs, so that errors do not add up over calls. The host code gets the recorded outputs: it
must make the recorded calls and produce the recorded image. Tiles, noise, colour, the sampler and its levels all show
in the inputs of the graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.arrays import Array, Image
from ...core.errors import GraphError, PackError
from ...core.pack.manifest import Manifest
from ...core.pack.systems import SYSTEMS
from ...core.restore.reference import ParityReference, ReferenceCall, ReferenceCase
from ...core.restore.restorer import Graph, Restorer
from ...core.sampling.samplers import PREDICTIONS
from ..limits import ParityLimit, limit_of, sharpened
from .findings import Check, ErrorSource, compare_arrays, scale_of
from .images import ImageSet, compare_images, forms_of
from .variants import BASE, LIMIT_OF, Variant

__all__ = ["Site", "kernel_source", "pipeline_source", "replay", "rounding", "scales", "sites"]

IMAGE_OUTPUTS = ("base", "restored")  # outputs that are images, which also have a limit on their mean shift
LOSSY = ("precision", "quantization")  # error sources that are judged by their effect on the image

_Arrays = dict[str, NDArray[np.float32]]


class Site(NamedTuple):
    """A call and where it comes from."""

    call: ReferenceCall
    case: str
    form: str
    number: int  # of the call among those of its graph, from 0

    def place(self, array: str) -> str:
        """In words."""
        return f"call {self.number}, {array}, {self.form}, {self.case}"


def replay(
    variants: Sequence[Variant], reference: ParityReference, known: Manifest
) -> tuple[list[ErrorSource], dict[str, Site]]:
    """Compare every variant with the one before it, and the first with the reference; by the limits of `known`.

    A variant that cannot be opened ends the replay: there is nothing to compare the next one with. Returns the error
    sources that were measured; and by the name of a source the first call over its limit.
    """
    places = {_id(site.call): site for site in sites(reference) if site.call.graph in known.graphs}
    units = scales(reference)
    sources: list[ErrorSource] = []
    first: dict[str, Site] = {}
    before: Mapping[str, _Arrays] = {key: reference.named(site.call.outputs) for key, site in places.items()}
    for variant in variants:
        limit = limit_of(LIMIT_OF[variant.source], known)
        try:
            graphs = variant.open(sorted({site.call.graph for site in places.values()}))
        except PackError as error:
            sources.append(ErrorSource(variant.source, [Check("", str(variant), str(error))], limit))
            break
        shares = _shares(known, reference) if variant.source in LOSSY else {}
        # The rounding of the reference limits only what is computed in the same precision.
        same = variant.source == "conversion" and variant.runtime == BASE
        floors = rounding(reference) if same else {}
        answers: dict[str, _Arrays] = {}
        checks: list[Check] = []
        for key, site in places.items():
            graph, found = site.call.graph, list[Check]()
            try:
                answers[key] = graphs[graph](**reference.named(site.call.inputs))
            except GraphError as error:
                found.append(Check(graph, site.place("no output"), str(error)))
            for name, expected in before.get(key, {}).items() if key in answers else ():
                own = sharpened(limit, floors[graph, name]) if (graph, name) in floors else limit
                unit = units[graph, name] * shares.get((key, name), 1.0)
                found.append(_compared(site, name, answers[key].get(name), expected, own, unit))
            checks += found
            if any(check.problem for check in found):
                first.setdefault(variant.source, site)
        sources.append(ErrorSource(variant.source, checks, limit))
        before = answers
    return sources, first


def _compared(site: Site, name: str, given: Array | None, expected: Array, limit: ParityLimit, unit: float) -> Check:
    where = site.call.graph, site.place(name)
    if given is None or given.shape != expected.shape:
        return Check(*where, "the output is missing, or has another shape")
    return compare_arrays(where, given, expected, limit, unit, image=name in IMAGE_OUTPUTS)


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


def kernel_source(reference: ParityReference, limit: ParityLimit) -> ErrorSource:
    """Compare fused kernels with plain PyTorch, as recorded on the machine of the reference."""
    units, checks = scales(reference), list[Check]()
    for site in sites(reference):
        outputs = reference.named(site.call.outputs)
        for name, fused in reference.named(site.call.kernels).items():
            checks.append(_compared(site, name, fused, outputs[name], limit, units[site.call.graph, name]))
    if checks:
        return ErrorSource("kernel", checks, limit)
    return ErrorSource("kernel", (), reason=f"{reference.origin}; fused kernels run on CUDA")


def _shares(known: Manifest, reference: ParityReference) -> Mapping[tuple[str, str], float]:
    """(call, output) -> how many units of a prediction make one unit of the image.

    The smaller the share of the prediction that the clean state takes at the step's noise level, the more.
    """
    if SYSTEMS[known.model].vector:
        return {}
    # The largest root mean square, over cases, of the map that scales the residual per pixel; 1 without a map.
    outputs = ([call.outputs for call in case.calls.get("split", ())] for case in reference.about.cases)
    maps = ([reference.arrays[keys["amplitude"]] for keys in some if "amplitude" in keys] for some in outputs)
    amplitude = max((scale_of(*found, least=1e-6) for found in maps if found), default=1.0)
    scale = known.residual_scale * known.gain * amplitude
    return {
        (_id(site.call), known.predicts): 1 / (scale * _share(known, reference.arrays[site.call.inputs["t"]]))
        for site in sites(reference)
        if site.call.graph == "denoise"
    }


def _share(known: Manifest, t: NDArray[np.float32]) -> float:
    """How far the clean state moves if the prediction at the time `t` moves by 1."""
    level = known.levels[int(np.argmin(np.abs(np.array(known.times) - t[0])))]
    clean, _ = PREDICTIONS[known.predicts](0.0, 1.0, level)
    return abs(clean)


def _id(call: ReferenceCall) -> str:
    return f"{call.graph} {sorted(call.inputs.items())}"


def pipeline_source(manifest: Manifest, reference: ParityReference, limit: ParityLimit) -> tuple[ErrorSource, ImageSet]:
    """Compare the code around the graphs with what was recorded, the recorded answers taking the place of graphs."""
    checks: list[Check] = []
    restored: dict[tuple[str, str], Image] = {}
    for case in reference.about.cases:
        for form in (form for form in forms_of(manifest) if form in case.calls):
            image, made = _replayed_host(manifest, reference, case, form, limit)
            checks += made
            if image is not None:
                expected = reference.arrays[case.pictures[form]]
                checks.append(compare_images(image, expected, limit, f"picture, {form}, {case.name}"))
                restored[form, case.name] = image
    return ErrorSource("pipeline", checks, limit), ImageSet(restored, {})


def _replayed_host(
    manifest: Manifest, reference: ParityReference, case: ReferenceCase, form: str, limit: ParityLimit
) -> tuple[Image | None, list[Check]]:
    """The image that the recorded outputs lead to, None after other calls; and the checks of all calls on the way."""
    where, checks = f"{form}, {case.name}", list[Check]()
    queues: dict[str, list[ReferenceCall]] = {}
    for call in case.calls[form]:
        queues.setdefault(call.graph, []).append(call)
    totals = {graph: len(queue) for graph, queue in queues.items()}

    def answering(graph: str) -> Graph:
        def call(**inputs: NDArray[np.float32]) -> _Arrays:
            if not queues[graph]:
                raise GraphError(f"expected {totals[graph]} calls of the graph '{graph}' as recorded, got one more")
            number, recorded = totals[graph] - len(queues[graph]), queues[graph].pop(0)
            site = Site(recorded, case.name, form, number)
            checks.extend(_compared_inputs(site, inputs, reference.named(recorded.inputs), limit))
            return {name: array.copy() for name, array in reference.named(recorded.outputs).items()}

        return call

    restorer = Restorer(manifest, {graph: answering(graph) for graph in queues})
    try:
        image = restorer(reference.arrays[case.photo], **case.settings, tile=case.tile)
    except GraphError as error:
        return None, [*checks, Check("", where, str(error))]
    for graph, left in queues.items():
        if left:
            checks.append(Check(graph, where, f"{len(left)} of the {totals[graph]} recorded calls were not made"))
    return image, checks


def _compared_inputs(site: Site, given: _Arrays, expected: _Arrays, limit: ParityLimit) -> Iterator[Check]:
    """A check of each input of a call; GraphError for inputs of other names or shapes."""
    graph = site.call.graph
    if set(given) != set(expected):
        raise GraphError(f"{graph}, call {site.number}: expected {sorted(expected)} as recorded, got {sorted(given)}")
    for name, array in expected.items():
        place, shape = site.place(f"input {name}"), given[name].shape
        if shape != array.shape:
            raise GraphError(f"{graph}, {place}: expected {list(array.shape)} as recorded, got {list(shape)}")
        yield compare_arrays((graph, place), given[name], array, limit, scale_of(array), image=False)
