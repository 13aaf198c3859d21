"""The target "coreml": packages, converted in float32, then rewritten for float16, for a plan, for several tasks."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from ....core.errors import UsageError
from ....core.pack.manifest import Manifest, mirror
from ....core.pack.store import packed_file
from .. import WEIGHT_PRECISIONS, GraphToWrite, Joined, Offer, Target, TaskPack, Written
from ..calibration import FloatPack, Range, conv_arrays
from ..weights import GROUP, initializers, uses, weights_digest
from .convert import DEFAULT_DEPLOYMENT_TARGET, DEPLOYMENT_TARGETS, convert_coreml
from .coreml_package import FUNCTIONS, CoremlPackage, raise_version, stored_values, write_package
from .fp16 import in_fp16
from .quantized_coreml import NEEDS, PALETTES, ConvRanges, quantized_package

__all__ = ["TARGET", "coreml_files"]


def coreml_files(pack: FloatPack, precisions: Mapping[str, str], folder: Path, label: str) -> dict[str, Written]:
    """Write the graphs as packages; arithmetic is in float16 under the label "fp16" and those with "+fp16".

    Raises UsageError for a float pack without Core ML packages, MissingExtraError without coremltools.
    """
    _check(pack.manifest)
    fp16 = label.endswith("fp16")
    # Where all arithmetic is in float16, weights in float16 need nothing of their own.
    plain = {name: "fp32" if fp16 and precision == "fp16" else precision for name, precision in precisions.items()}
    named, written = pack.by_digest(plain), dict[str, Written]()
    for name, model in pack.models.items():
        mine = {layer.digest: named[layer.digest] for layer in pack.layers if name in layer.graphs}
        source = CoremlPackage.read((pack.folder / pack.manifest.graphs[name].files["coreml"]["fp32"].file).parent)
        package = quantized_package(source, mine, _conv_ranges(model, pack.values[name]))
        path = folder / f"{name}.{label}.mlpackage"
        write_package(in_fp16(package) if fp16 else package, path)
        written[name] = _written(folder, path.name, label)
    return written


def _joined(packages: Mapping[str, CoremlPackage], metadata: Mapping[str, str]) -> CoremlPackage:
    """One package, whose functions are the "main" functions of the packages; the first is its default."""
    first, *_ = packages.values()
    result = CoremlPackage(type(first.spec)())
    spec = result.spec
    spec.specificationVersion = max(FUNCTIONS, *(package.spec.specificationVersion for package in packages.values()))
    spec.mlProgram.version = first.spec.mlProgram.version
    spec.description.defaultFunctionName = next(iter(packages))
    for key in sorted(metadata):
        spec.description.metadata.userDefined[key] = metadata[key]
    for name, package in packages.items():
        one = package.copy()
        raise_version(one.spec, spec.specificationVersion)
        for value in stored_values(one.spec):
            value.blobFileValue.offset += len(result.blobs)
        result.blobs += one.blobs
        spec.mlProgram.functions[name].CopyFrom(one.spec.mlProgram.functions["main"])
        described = spec.description.functions.add(name=name)
        described.input.extend(one.spec.description.input)
        described.output.extend(one.spec.description.output)
    return result


def _join(packs: Sequence[TaskPack], folder: Path) -> Joined:
    """One package of several functions for each precision, with all graphs of all tasks."""
    packages, functions, metadata = dict[str, dict[str, CoremlPackage]](), dict[tuple[str, str, str], str](), {}
    for pack in packs:
        for graph, spec in pack.manifest.graphs.items():
            for label, packed in spec.files.get("coreml", {}).items():
                function = f"{pack.task}__{graph}" if pack.prefix else ""
                package = CoremlPackage.read((pack.folder / packed.file).parent)
                packages.setdefault(label, {})[function or graph] = package
                functions[pack.task, graph, label] = function
                metadata[f"pocketprior.manifest.{pack.task}"] = mirror(pack.manifest)
    written: dict[str, Written] = {}
    for label, several in packages.items():
        write_package(_joined(several, metadata), folder / f"{label}.mlpackage")
        written[label] = _written(folder, f"{label}.mlpackage", label)
    return {key: written[key[-1]]._replace(function=function) for key, function in functions.items()}


def _check(manifest: Manifest) -> None:
    """Raise UsageError unless each graph has a float32 package."""
    for name, spec in manifest.graphs.items():
        if "fp32" not in spec.files.get("coreml", {}):
            raise UsageError(
                f"the pack '{manifest.name}' has no float32 Core ML package of the graph '{name}'; export it with "
                "--to onnx,coreml --precision fp32"
            )


def _write(job: GraphToWrite, folder: Path) -> Written:
    convert_coreml(job, folder / f"{job.name}.mlpackage")
    return _written(folder, f"{job.name}.mlpackage", "fp32")


def _written(folder: Path, package: str, label: str) -> Written:
    """A package as entries of a pack: its own manifest, and all that this lists."""
    files = sorted(file.relative_to(folder).as_posix() for file in (folder / package).rglob("*") if file.is_file())
    main = f"{package}/Manifest.json"
    return Written(label, packed_file(folder, main), tuple(packed_file(folder, file) for file in files if file != main))


def _conv_ranges(model: onnx.ModelProto, values: Mapping[str, Range]) -> dict[str, list[ConvRanges]]:
    """The ranges around each convolution, by the digest of its weights, in the order of the graph."""
    weights, found = initializers(model), dict[str, list[ConvRanges]]()
    for node in uses(model):
        if node.op_type == "Conv":
            ranges = ConvRanges(*(values[name] for name in conv_arrays(model, node)))
            found.setdefault(weights_digest(weights[node.input[1]]), []).append(ranges)
    return found


def _plan(_: FloatPack, precisions: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Layer -> the fields of its `OpLinearQuantizerConfig`; and the layers that compute in integers."""
    eight = {"mode": "linear_symmetric", "dtype": "int8", "granularity": "per_channel", "weight_threshold": 0}
    four = {**eight, "dtype": "int4", "granularity": "per_block", "block_size": GROUP}
    configs = {"w8": eight, "int8": eight, "w4": four}
    return "coreml", {
        "compute_precision": "float16",
        "weights": {layer: configs[kind] for layer, kind in sorted(precisions.items()) if kind in configs},
        "activations": sorted(layer for layer, kind in precisions.items() if kind == "int8"),
    }


TARGET = Target(
    name="coreml",
    runtime="coreml",
    precisions=(*WEIGHT_PRECISIONS, *(f"{precision}+fp16" for precision in (*WEIGHT_PRECISIONS[2:], *PALETTES))),
    emit=coreml_files,
    write=_write,
    join=_join,
    check=_check,
    offers=lambda label, precisions: {f"{label}+fp16": Offer(precisions, coreml_files)},
    plan=_plan,
    timed=sys.platform == "darwin",  # elsewhere our interpreter stands in for Core ML
    deployment_targets=DEPLOYMENT_TARGETS,
    default_deployment_target=DEFAULT_DEPLOYMENT_TARGET,
    joined_deployment_target="iOS18",  # the first whose packages may hold several functions
    needs=NEEDS,
    images=True,
)
