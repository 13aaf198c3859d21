"""The first layer of a graph over its limit: compares two variants on the same inputs, array by array.

A runtime returns only the outputs of a graph, so ONNX Runtime and OpenVINO run a copy of it in which every array is an
output; Core ML's programs are run by our own interpreter, because Core ML shows nothing of its inside.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.arrays import Array
from ...core.errors import GraphError, MissingExtraError, PackError, UsageError
from ...core.pack.manifest import Manifest
from ...core.restore.reference import ParityReference
from ..check import first_line
from ..coreml import as_8_bits
from ..limits import ParityLimit, limit_of
from ..mil import read_package
from ..onnxruntime import failures, open_session
from ..openvino import HINTS, last_line, read_model, the_core
from ..options import TYPED_TARGETS, arithmetic_of
from .call_replay import IMAGE_OUTPUTS, Site, sites
from .findings import LayerDifference, LayerValue, breach, measure, scale_of
from .variants import LIMIT_OF, Variant

__all__ = ["inside_coreml", "inside_onnxruntime", "inside_openvino", "layer_differences"]

QUANTIZING = ("Cast", "Mul", "Sub", "QuantizeLinear", "DequantizeLinear")  # operators of ONNX
QUANTIZING += ("Convert", "Multiply", "Subtract", "FakeQuantize")  # and of OpenVINO
LAYERS_SHOWN = 5  # of a graph: the worst; the first over its limit is shown too
MODULE_KEY = "pocketprior.module"  # metadata of an ONNX node: the part of the model that it comes from

Values = dict[str, LayerValue]
_Made = dict[str, tuple[str, str, str]]  # array -> name and operator of its node, and its module


def layer_differences(
    variants: Sequence[Variant],
    broken: Mapping[str, Site],
    reference: ParityReference,
    known: Manifest,
    floats: Variant | None,
) -> tuple[list[LayerDifference], str]:
    """The layers of the variants around the first failure, else of the last two for every graph; and a note.

    broken: Error source -> the first call over its limit. known: The manifest that limits are read from. floats: Float
    graphs of another pack, which stand in for the reference if the first variant failed.

    Raises MissingExtraError without the package that looks inside a graph, UsageError for a runtime that does not show
    its layers.
    """
    pairs = zip([floats, *variants], variants, strict=False)
    looked = [(a, b, broken[b.source]) for a, b in pairs if a is not None and b.source in broken][:1]
    if broken and not looked:
        return [], (
            "layers were not compared: the reference only has the outputs of graphs; a float pack of the same model "
            "can stand in for it (--float)"
        )
    if not broken and len(variants) < 2:
        return [], "layers were not compared: nothing failed, and there is only one variant"
    if not broken:
        firsts: dict[str, Site] = {}
        for site in sites(reference):
            if site.call.graph in known.graphs:
                firsts.setdefault(site.call.graph, site)
        looked = [(variants[-2], variants[-1], site) for site in firsts.values()]
    layers, note = list[LayerDifference](), ""
    for before, after, site in looked:
        limit = limit_of(LIMIT_OF[after.source], known) if broken else None
        try:
            layers += _compared(before, after, site, reference, limit)
        except (GraphError, PackError) as error:
            note = f"layers of {site.call.graph} could not be compared: {error}"
    return layers, note


def _compared(
    before: Variant, after: Variant, site: Site, reference: ParityReference, limit: ParityLimit | None
) -> list[LayerDifference]:
    """The layers that both have, in computation order: the worst and, with a limit, the first that exceeds it."""
    graph, inputs = site.call.graph, reference.named(site.call.inputs)
    expected, given = (_inside(variant, graph, inputs) for variant in (before, after))
    # Arrays of one name correspond; where types are not declared, files of other precisions number them anew.
    labels = {variant.manifest.precision[variant.target][graph] for variant in (before, after)}
    if len(labels) > 1 and not (before.target == after.target and after.target in TYPED_TARGETS):
        expected, given = (_numbered(values, site.call.outputs) for values in (expected, given))
    layers: list[LayerDifference] = []
    for name, value in given.items():
        if name not in expected or expected[name].array.shape != value.array.shape or not value.array.size:
            continue
        array, module = expected[name].array, expected[name].module or value.module
        found = measure(value.array, array, 1.0 if name in IMAGE_OUTPUTS else scale_of(array))
        first = limit is not None and bool(breach(found, limit, image=False))
        limit = None if first else limit
        layers.append(LayerDifference(graph, value.node, value.operator, module, found, first))
    worst = sorted(range(len(layers)), key=lambda i: (layers[i].found.broken == 0, layers[i].found.psnr_db))
    return [layer for i, layer in enumerate(layers) if layer.broken or i in worst[:LAYERS_SHOWN]]


def _numbered(values: Values, outputs: Container[str]) -> Values:
    """The values under names such as "Conv 3", counted per operator, without those that quantize and dequantize.

    The `outputs` of the graph keep their names.
    """
    counts: dict[str, int] = {}
    found: Values = {}
    for name, value in values.items():
        if name in outputs:
            found[name] = value
        elif value.operator not in QUANTIZING:
            number = counts[value.operator] = counts.get(value.operator, -1) + 1
            found[f"{value.operator} {number}"] = value
    return found


def _inside(variant: Variant, graph: str, inputs: Mapping[str, Array]) -> Values:
    if variant.runtime not in INSIDE:
        raise UsageError(f"the runtime '{variant.runtime}' does not show its layers; leave out --layers")
    label = variant.manifest.precision[variant.target][graph]
    function = variant.manifest.graphs[graph].function or graph
    arithmetic = variant.arithmetic or arithmetic_of(label, variant.target)
    return INSIDE[variant.runtime](variant.file(graph), function, inputs, arithmetic)


def inside_onnxruntime(path: Path, _graph: str, inputs: Mapping[str, Array], _arithmetic: str) -> Values:
    """All float32 arrays of an ONNX file; always in float32. MissingExtraError without onnx."""
    content, made = _exposed(path)
    try:
        arrays = open_session(content, basic=True).run(list(made), dict(inputs))
    except failures() as error:
        raise GraphError(f"{path}: ONNX Runtime could not run it ({first_line(error)})") from error
    return {name: LayerValue(np.asarray(array), *made[name]) for name, array in zip(made, arrays, strict=True)}


def _exposed(path: Path) -> tuple[bytes, _Made]:
    """An ONNX graph with all its float32 arrays as outputs, and where each comes from."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "export", "looking into the layers of a graph") from error
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    outputs = {value.name for value in model.graph.output}
    made: _Made = {}
    for node in model.graph.node:
        module = next((entry.value for entry in node.metadata_props if entry.key == MODULE_KEY), "")
        for name in node.output:
            if types.get(name) == onnx.TensorProto.FLOAT:
                made[name] = (node.name or name, node.op_type, module)
    shapes = {value.name: value for value in model.graph.value_info}
    model.graph.output.extend(shapes[name] for name in made if name not in outputs)
    return model.SerializeToString(), made


def inside_openvino(path: Path, _graph: str, inputs: Mapping[str, Array], arithmetic: str) -> Values:
    """All float arrays of an ONNX or IR file, which keeps the names of ONNX.

    Raises MissingExtraError without openvino, and for an ONNX file without onnx.
    """
    core = the_core()
    try:
        if path.suffix == ".onnx":
            content, made = _exposed(path)
            model = core.read_model(content)
        else:
            model = read_model(path)
            made = _opened(model)
        model.reshape({name: list(array.shape) for name, array in inputs.items()})
        run = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[arithmetic]})
        results = run({name: np.ascontiguousarray(array) for name, array in inputs.items()})
    except RuntimeError as error:
        raise GraphError(f"{path}: OpenVINO could not run it ({last_line(error)})") from error
    return {name: LayerValue(np.array(results[name]), *made[name]) for name in made}


def _opened(model: Any) -> _Made:
    """Make outputs of all float arrays that have a name."""
    made: _Made = {}
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind in ("Parameter", "Constant", "Result"):
            continue
        for port in operation.outputs():
            if port.names and port.element_type.is_real():
                made[min(port.names)] = (operation.get_friendly_name(), kind, "")
    ready = {name for port in model.outputs for name in port.names}
    model.add_outputs([name for name in made if name not in ready])
    return made


def inside_coreml(path: Path, graph: str, inputs: Mapping[str, Array], arithmetic: str) -> Values:
    """All float arrays of the program of a graph, in the MIL interpreter."""
    found: Values = {}

    def observe(op: str, output: str, array: Array) -> None:
        if array.dtype.kind == "f":
            found[output] = LayerValue(array, output, op, "")

    program = read_package(path.parent).function(graph)
    program.run(as_8_bits(inputs, program.inputs), arithmetic, observe)
    return found


# The runtimes that show their layers: all arrays inside a graph, by name, in the order of computation. GraphError where
# the graph cannot be run.
INSIDE: dict[str, Callable[[Path, str, Mapping[str, Array], str], Values]] = {
    "onnxruntime": inside_onnxruntime,
    "openvino": inside_openvino,
    "coreml": inside_coreml,
}
