"""The first layer of a graph over its limit: compares two variants on the same inputs, array by array."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from ...core.arrays import Array
from ...core.errors import UsageError
from ..limits import ParityLimit
from ..options import arithmetic_of
from .findings import LayerDifference, LayerValue
from .graph_replay import IMAGE_OUTPUTS, Site
from .inside import INSIDE
from .measures import breach, measure, scale_of
from .reference import ParityReference
from .variants import LIMIT_OF, Variant

__all__ = ["LAYERS_SHOWN", "VariantPair", "compared", "pairs"]

QUANTIZING = (
    "Cast",
    "Mul",
    "QuantizeLinear",
    "DequantizeLinear",
    "Convert",
    "Multiply",
    "FakeQuantize",
    "Subtract",
    "Sub",
)
LAYERS_SHOWN = 5  # of a graph: the worst; the first over its limit is shown too


class VariantPair(NamedTuple):
    """Two variants that should agree, and the call to look into."""

    before: Variant
    after: Variant
    site: Site
    kind: str  # class of the limit
    broke: bool  # whether the outputs of the call exceed the limit


def pairs(
    variants: Sequence[Variant], broken: Mapping[str, Site], every: Sequence[Site], floats: Variant | None
) -> tuple[list[VariantPair], str]:
    """The variants around the first failure, else the last two for every graph; and a note.

    Args:
        variants: All that were compared.
        broken: Error source -> the first call over its limit.
        every: All calls.
        floats: Float graphs of another pack, which stand in for the reference if the first variant failed.
    """
    around = dict(
        zip((variant.source for variant in variants), zip([floats, *variants], variants, strict=False), strict=True)
    )
    for source, site in broken.items():
        before, after = around[source]
        if before is not None:
            return [VariantPair(before, after, site, LIMIT_OF[source], True)], ""
    if broken:
        return [], (
            "layers were not compared: the reference only has the outputs of graphs; a float pack of the same model "
            "can stand in for it (--float)"
        )
    if len(variants) < 2:
        return [], "layers were not compared: nothing failed, and there is only one variant"
    firsts = {site.call.graph: site for site in reversed(every)}
    return [
        VariantPair(variants[-2], variants[-1], site, LIMIT_OF[variants[-1].source], False)
        for site in reversed(firsts.values())
    ], ""


def compared(pair: VariantPair, reference: ParityReference, limit: ParityLimit) -> list[LayerDifference]:
    """The layers that both have: the worst and, if the graph failed, the first over the limit, in computation order.

    Raises:
        MissingExtraError: The package that looks inside a graph is not installed.
        UsageError: The runtime does not show its layers.
    """
    graph = pair.site.call.graph
    inputs = reference.named(pair.site.call.inputs)
    before, after = (_inside(variant, graph, inputs) for variant in (pair.before, pair.after))
    if not _same_names(pair, graph):
        before, after = (_numbered(values, pair.site.call.outputs) for values in (before, after))
    layers = [
        _layer(graph, before[name], value, 1.0 if name in IMAGE_OUTPUTS else scale_of(before[name].array))
        for name, value in after.items()
        if name in before and before[name].array.shape == value.array.shape and value.array.size
    ]
    breaking = (i for i, layer in enumerate(layers) if pair.broke and breach(layer.found, limit, image=False))
    first = next(breaking, None)
    marked = [layer._replace(broken=i == first) for i, layer in enumerate(layers)]
    order = sorted(enumerate(marked), key=lambda entry: (entry[1].found.broken == 0, entry[1].found.psnr_db))
    shown = {i for i, layer in order[:LAYERS_SHOWN]} | {i for i, layer in order if layer.broken}
    return [layer for i, layer in enumerate(marked) if i in shown]


def _same_names(pair: VariantPair, graph: str) -> bool:
    """Whether arrays of one name correspond: Core ML keeps names, other files number them anew."""
    labels = {variant.manifest.precision[variant.target][graph] for variant in (pair.before, pair.after)}
    return len(labels) == 1 or {pair.before.target, pair.after.target} == {"coreml"}


def _numbered(values: Mapping[str, LayerValue], outputs: Container[str]) -> dict[str, LayerValue]:
    """The values under names such as "Conv 3", counted per operator, without those that quantize and dequantize.

    The `outputs` of the graph keep their names.
    """
    counts: dict[str, int] = {}
    found: dict[str, LayerValue] = {}
    for name, value in values.items():
        if name in outputs:
            found[name] = value
        elif value.operator not in QUANTIZING:
            number = counts[value.operator] = counts.get(value.operator, -1) + 1
            found[f"{value.operator} {number}"] = value
    return found


def _inside(variant: Variant, graph: str, inputs: Mapping[str, Array]) -> dict[str, LayerValue]:
    if variant.runtime not in INSIDE:
        raise UsageError(f"the runtime '{variant.runtime}' does not show its layers; leave out --layers")
    label = variant.manifest.precision[variant.target][graph]
    function = variant.manifest.graphs[graph].function or graph
    arithmetic = variant.arithmetic or arithmetic_of(label, variant.target)
    return INSIDE[variant.runtime](variant.file(graph), function, inputs, arithmetic)


def _layer(graph: str, before: LayerValue, after: LayerValue, scale: float) -> LayerDifference:
    found = measure(after.array, before.array, scale)
    return LayerDifference(graph, after.node, after.operator, before.module or after.module, found, False)
