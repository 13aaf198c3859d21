"""The first layer of a graph that breaks: what two files, or two runtimes, give between the same inputs and outputs."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

from ...core.arrays import Array
from ...core.errors import UsageError
from ..options import arithmetic_of
from .findings import Layer, Value
from .graphs import PICTURES, Site
from .legs import CLASSES, Leg
from .limits import Limit, breach
from .measures import measure, scale_of
from .recording import Recording

__all__ = ["SHOWN", "Pair", "compared", "pairs"]

INSIDE = {"onnxruntime": "inside_onnx", "openvino": "inside_openvino", "coreml": "inside_coreml"}
CODING = ("Cast", "Mul", "QuantizeLinear", "DequantizeLinear", "Convert", "Multiply", "FakeQuantize", "Subtract", "Sub")
SHOWN = 5  # layers of a graph: the first that breaks, and those that are furthest off


class Pair(NamedTuple):
    """Two legs that should give the same up to what the class of their limit allows, and where to look.

    broke: whether they do not, as far as outputs tell.
    """

    before: Leg
    after: Leg
    site: Site
    kind: str
    broke: bool


def pairs(
    legs: Sequence[Leg], broken: Mapping[str, Site], every: Sequence[Site], floats: Leg | None
) -> tuple[list[Pair], str]:
    """Where something broke the legs around it, else the last two for every graph; and what is to be said.

    floats: the float graphs of another pack, which stand in for the reference where the first leg broke.
    """
    around = dict(zip((leg.stage for leg in legs), zip([floats, *legs], legs, strict=False), strict=True))
    for stage, site in broken.items():
        before, after = around[stage]
        if before is not None:
            return [Pair(before, after, site, CLASSES[stage], True)], ""
    if broken:
        return [], (
            "layers were not looked at: the reference, which is PyTorch, tells of whole graphs alone; a float pack of "
            "the same model may stand in for it (--float)"
        )
    if len(legs) < 2:
        return [], "layers were not looked at: nothing broke, and there is one kind of graph alone"
    firsts = {site.call.graph: site for site in reversed(every)}
    return [Pair(legs[-2], legs[-1], site, CLASSES[legs[-1].stage], False) for site in reversed(firsts.values())], ""


def compared(pair: Pair, recording: Recording, limit: Limit) -> list[Layer]:
    """The layers that both have: the first that breaks, if the graph does, and the worst, in the order of computation.

    Raises MissingExtraError, UsageError for what cannot be looked into here.
    """
    graph = pair.site.call.graph
    inputs = recording.named(pair.site.call.inputs)
    before, after = (_inside(leg, graph, inputs) for leg in (pair.before, pair.after))
    if not _same_names(pair, graph):
        before, after = (_numbered(values, pair.site.call.outputs) for values in (before, after))
    layers = [
        _layer(graph, before[name], value, 1.0 if name in PICTURES else scale_of(before[name].array))
        for name, value in after.items()
        if name in before and before[name].array.shape == value.array.shape and value.array.size
    ]
    breaking = (i for i, layer in enumerate(layers) if pair.broke and breach(layer.found, limit, picture=False))
    first = next(breaking, None)
    marked = [layer._replace(broken=i == first) for i, layer in enumerate(layers)]
    order = sorted(enumerate(marked), key=lambda entry: (entry[1].found.broken == 0, entry[1].found.psnr_db))
    shown = {i for i, layer in order[:SHOWN]} | {i for i, layer in order if layer.broken}
    return [layer for i, layer in enumerate(marked) if i in shown]


def _same_names(pair: Pair, graph: str) -> bool:
    """Whether arrays of one name are the same: Core ML keeps names, in other files they are counted anew."""
    labels = {leg.manifest.precision[leg.target][graph] for leg in (pair.before, pair.after)}
    return len(labels) == 1 or {pair.before.target, pair.after.target} == {"coreml"}


def _numbered(values: Mapping[str, Value], outputs: Container[str]) -> dict[str, Value]:
    """Under names such as "Conv 3", by the order of nodes of one operator; what decodes and encodes is left out.

    outputs: those of the graph, which keep their names.
    """
    counts: dict[str, int] = {}
    found: dict[str, Value] = {}
    for name, value in values.items():
        if name in outputs:
            found[name] = value
        elif value.operator not in CODING:
            number = counts[value.operator] = counts.get(value.operator, -1) + 1
            found[f"{value.operator} {number}"] = value
    return found


def _inside(leg: Leg, graph: str, inputs: Mapping[str, Array]) -> dict[str, Value]:
    if leg.runtime not in INSIDE:
        raise UsageError(f"the runtime '{leg.runtime}' does not tell its layers; leave --layers out")
    label = leg.manifest.precision[leg.target][graph]
    module = import_module(f".{INSIDE[leg.runtime]}", __package__)
    function = leg.manifest.graphs[graph].function or graph
    return module.inside(leg.file(graph), function, inputs, leg.arithmetic or arithmetic_of(label, leg.target))


def _layer(graph: str, before: Value, after: Value, scale: float) -> Layer:
    found = measure(after.array, before.array, scale)
    return Layer(graph, after.node, after.operator, before.module or after.module, found, False)
