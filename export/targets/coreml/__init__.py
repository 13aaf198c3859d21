"""The target "coreml": packages, converted in float32, then rewritten for float16, for a plan, for several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from ....core.errors import UsageError
from ....core.pack.manifest import Manifest, mirror
from ....core.pack.store import packed_file
from .. import WEIGHT_PRECISIONS, GraphToWrite, Offer, Target, Written, by_digest
from ..calibration import FloatPack, Range, conv_arrays
from ..weights import initializers, uses, weights_digest
from .convert import DEFAULT_DEPLOYMENT_TARGET, DEPLOYMENT_TARGETS, convert_coreml
from .fp16 import in_fp16
from .package import FUNCTIONS, CoremlPackage, blob_places, raise_version, write_package
from .quantized import NEEDS, PALETTES, ConvRanges, quantized_package

__all__ = ["TARGET", "JoinedPackages", "coreml_files", "joined_packages"]


def coreml_files(pack: FloatPack, precisions: Mapping[str, str], folder: Path, label: str) -> dict[str, Written]:
    """Write the graphs as packages; arithmetic is in float16 under the label "fp16" and those with "+fp16".

    Raises:
        UsageError: The float pack has no Core ML packages.
        MissingExtraError: coremltools is not installed.
    """
    _check(pack.manifest)
    fp16 = label.endswith("fp16")
    # Where all arithmetic is in float16, weights in float16 need nothing of their own.
    plain = {name: "fp32" if fp16 and precision == "fp16" else precision for name, precision in precisions.items()}
    named, written = by_digest(pack, plain), dict[str, Written]()
    for name, model in pack.models.items():
        mine = {layer.digest: named[layer.digest] for layer in pack.layers if name in layer.graphs}
        source = CoremlPackage.read((pack.folder / pack.manifest.graphs[name].files["coreml"]["fp32"].file).parent)
        package = quantized_package(source, mine, _conv_ranges(model, pack.values[name]))
        path = folder / f"{name}.{label}.mlpackage"
        write_package(in_fp16(package) if fp16 else package, path)
        written[name] = _written(folder, path.name, label)
    return written


def joined_packages(packages: Mapping[str, CoremlPackage], metadata: Mapping[str, str]) -> CoremlPackage:
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
        for value in blob_places(one.spec):
            value.offset += len(result.blobs)
        result.blobs += one.blobs
        spec.mlProgram.functions[name].CopyFrom(one.spec.mlProgram.functions["main"])
        described = spec.description.functions.add(name=name)
        described.input.extend(one.spec.description.input)
        described.output.extend(one.spec.description.output)
    return result


class JoinedPackages:
    """Joins packages of several tasks into one of several functions; see `Joiner`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages: dict[str, dict[str, CoremlPackage]] = {}
        self.metadata: dict[str, str] = {}

    def add(self, pack: Path, manifest: Manifest, prefix: str) -> None:
        """As in `Joiner`."""
        task = manifest.tasks[0]
        for graph, spec in manifest.graphs.items():
            for label, packed in spec.files.get("coreml", {}).items():
                name = self.function(task, graph) if prefix else graph
                self.packages.setdefault(label, {})[name] = CoremlPackage.read((pack / packed.file).parent)
                self.metadata[f"pocketprior.manifest.{task}"] = mirror(manifest)

    def finish(self) -> None:
        """As in `Joiner`."""
        for label, packages in self.packages.items():
            write_package(joined_packages(packages, self.metadata), self.folder / f"{label}.mlpackage")

    def written(self, task: str, graph: str, label: str) -> Written:  # noqa: ARG002
        """As in `Joiner`: all graphs of a precision are in one package."""
        return _written(self.folder, f"{label}.mlpackage", label)

    def function(self, task: str, graph: str) -> str:
        """As in `Joiner`."""
        return f"{task}__{graph}"


def _check(manifest: Manifest) -> None:
    """Raise UsageError unless each graph has a float32 package."""
    for name, spec in manifest.graphs.items():
        if "fp32" not in spec.files.get("coreml", {}):
            raise UsageError(
                f"the pack '{manifest.name}' has no float32 Core ML package of the graph '{name}'; export it with "
                "--to onnx,coreml --precision fp32"
            )


def _write(job: GraphToWrite, folder: Path) -> Written:
    package = f"{job.name}.mlpackage"
    convert_coreml(
        job.graph,
        job.program,
        folder / package,
        multiple=job.multiple,
        tile=job.tile,
        images=job.images,
        metadata=job.metadata,
        deployment_target=job.deployment_target,
    )
    return _written(folder, package, "fp32")


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
            before, after = conv_arrays(model, node)
            found.setdefault(weights_digest(weights[node.input[1]]), []).append(
                ConvRanges(values[before], values[after])
            )
    return found


TARGET = Target(
    name="coreml",
    runtime="coreml",
    precisions=(*WEIGHT_PRECISIONS, *(f"{precision}+fp16" for precision in (*WEIGHT_PRECISIONS[2:], *PALETTES))),
    emit=coreml_files,
    write=_write,
    join=JoinedPackages,
    check=_check,
    offers=lambda label, precisions: {f"{label}+fp16": Offer(precisions, coreml_files)},
    deployment_targets=DEPLOYMENT_TARGETS,
    default_deployment_target=DEFAULT_DEPLOYMENT_TARGET,
    joined_deployment_target="iOS18",  # the first whose packages may hold several functions
    needs=NEEDS,
    images=True,
)
