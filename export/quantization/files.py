"""The graphs of a float pack at given levels, as files of each target, and the manifest that lists them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx

from ...core.errors import UsageError
from ...core.pack.manifest import GraphSpec, Manifest, PackedFile
from ...core.pack.store import packed_file
from ..coreml.coded import Ends
from ..coreml.coded import emit as emit_coreml
from ..coreml.halves import halved
from ..coreml.package import Package
from ..coreml.package import write as write_package
from ..onnx_file import write_graph
from .layers import initializers, uses, weights_digest
from .onnx_graphs import emit
from .openvino_graphs import write_ir
from .ranges import Range, ends
from .variant import FloatPack

__all__ = [
    "EMITTERS",
    "Written",
    "assembled",
    "bare",
    "check_packages",
    "coreml_files",
    "filed",
    "onnx_files",
    "openvino_files",
    "package_parts",
    "write_onnx",
]

IR_CALLS = 40  # of a graph, which NNCF looks at: of a denoiser ten photos in four steps


class Written(NamedTuple):
    """A file of a graph; label: its precision; parts: what lies beside it and belongs to it."""

    label: str
    file: PackedFile
    parts: tuple[PackedFile, ...] = ()


def onnx_files(
    pack: FloatPack, levels: Mapping[str, str], folder: Path, label: str, graphs: Sequence[str] | None = None
) -> dict[str, Written]:
    """Write the graphs with their layers at `levels` (by name) into `folder`; what has not changed is copied as fp32.

    graphs: None for all; others are left in float.
    """
    by_digest = _by_digest(pack, levels)
    written: dict[str, Written] = {}
    for name, model in pack.models.items():
        coded = (layer for layer in pack.layers if name in layer.graphs and levels[layer.name] != "fp32")
        if (graphs is None or name in graphs) and any(coded):
            file = f"{name}.{label}.onnx"
            beside = write_graph(emit(model, by_digest, pack.values[name]), folder / file)
            written[name] = Written(
                label, packed_file(folder, file), tuple(packed_file(folder, p.name) for p in beside)
            )
        else:
            spec = pack.manifest.graphs[name]
            written[name] = Written("fp32", spec.files["onnx"]["fp32"], spec.parts.get("onnx", {}).get("fp32", ()))
            for packed in (written[name].file, *written[name].parts):
                shutil.copyfile(pack.folder / packed.file, folder / packed.file)
    return written


def openvino_files(
    pack: FloatPack, levels: Mapping[str, str], folder: Path, label: str, nncf: bool = False
) -> dict[str, Written]:
    """Write the graphs as OpenVINO IR; what is not coded is in float16, but under the label "fp32".

    nncf: whether it gives the scales of integers, instead of those of the ONNX graphs. Raises MissingExtraError without
    openvino, or without nncf where that is asked for.
    """
    written: dict[str, Written] = {}
    for name, model in pack.models.items():
        path = folder / f"{name}.{label}.xml"
        scales = pack.feeds[name][:IR_CALLS] if nncf else pack.values[name]
        write_ir(model, _by_digest(pack, levels), scales, path, halves=label != "fp32")
        parts = (packed_file(folder, path.with_suffix(".bin").name),)
        written[name] = Written(label, packed_file(folder, path.name), parts)
    return written


def coreml_files(pack: FloatPack, levels: Mapping[str, str], folder: Path, label: str) -> dict[str, Written]:
    """Write the graphs as Core ML packages; arithmetic is in float16 under the label "fp16" and those with "+fp16".

    Raises UsageError where the float pack has no Core ML packages, MissingExtraError without coremltools.
    """
    halves = label.endswith("fp16")
    # Where all arithmetic is in float16, weights in float16 need nothing of their own.
    plain = {name: "fp32" if halves and level == "fp16" else level for name, level in levels.items()}
    by_digest = _by_digest(pack, plain)
    written: dict[str, Written] = {}
    for name, model in pack.models.items():
        mine = {layer.digest: by_digest[layer.digest] for layer in pack.layers if name in layer.graphs}
        package = emit_coreml(_package(pack, name), mine, _ends(model, pack.values[name]))
        path = folder / f"{name}.{label}.mlpackage"
        write_package(halved(package) if halves else package, path)
        written[name] = package_parts(folder, path.name, label)
    return written


def check_packages(manifest: Manifest) -> None:
    """Raise UsageError unless each graph has a float32 Core ML package."""
    for name, spec in manifest.graphs.items():
        if "fp32" not in spec.files.get("coreml", {}):
            raise UsageError(
                f"the pack '{manifest.name}' has no float32 Core ML package of the graph '{name}'; export it with "
                "--to onnx,coreml --precision fp32"
            )


EMITTERS: dict[str, Callable[[FloatPack, Mapping[str, str], Path, str], dict[str, Written]]] = {
    "onnx": onnx_files,
    "openvino": openvino_files,
    "coreml": coreml_files,
}


def write_onnx(
    pack: FloatPack, levels: Mapping[str, str], folder: Path, label: str, graphs: Sequence[str] | None = None
) -> Manifest:
    """Write a pack of ONNX graphs into the folder, which must be there; its manifest. As `onnx_files`."""
    written = onnx_files(pack, levels, folder, label, graphs)
    return assembled(pack, folder, filed(bare(pack.manifest), "onnx", written))


def assembled(pack: FloatPack, folder: Path, manifest: Manifest) -> Manifest:
    """Save the manifest; what is not in the folder yet is that of the float pack: its card, golden restorations."""
    for file in manifest.files():
        place = folder / file.file
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes((pack.folder / file.file).read_bytes())
    manifest.save(folder)
    return manifest


def package_parts(folder: Path, package: str, label: str) -> Written:
    """The entries of a Core ML package in the folder of a pack: its own manifest, and all that this lists."""
    files = sorted(file.relative_to(folder).as_posix() for file in (folder / package).rglob("*") if file.is_file())
    main = f"{package}/Manifest.json"
    parts = tuple(packed_file(folder, file) for file in files if file != main)
    return Written(label, packed_file(folder, main), parts)


def bare(manifest: Manifest) -> Manifest:
    """The manifest without graph files."""
    graphs = {name: dataclasses.replace(spec, files={}, parts={}) for name, spec in manifest.graphs.items()}
    return dataclasses.replace(manifest, graphs=graphs, precision={})


def filed(manifest: Manifest, target: str, written: Mapping[str, Written]) -> Manifest:
    """The manifest with one more file of each graph for a target; of a target the first is the one that is run."""
    graphs = {name: _with(spec, target, written[name]) for name, spec in manifest.graphs.items()}
    first = {name: new.label for name, new in written.items()}
    precision = {target: first, **manifest.precision}
    return dataclasses.replace(manifest, graphs=graphs, precision=precision)


def _with(spec: GraphSpec, target: str, new: Written) -> GraphSpec:
    files = {**spec.files, target: {**spec.files.get(target, {}), new.label: new.file}}
    if not new.parts:
        return dataclasses.replace(spec, files=files)
    parts = {**spec.parts, target: {**spec.parts.get(target, {}), new.label: new.parts}}
    return dataclasses.replace(spec, files=files, parts=parts)


def _by_digest(pack: FloatPack, levels: Mapping[str, str]) -> dict[str, str]:
    return {layer.digest: levels[layer.name] for layer in pack.layers}


def _package(pack: FloatPack, graph: str) -> Package:
    check_packages(pack.manifest)
    packed = pack.manifest.graphs[graph].files["coreml"]["fp32"]
    return Package.read((pack.folder / packed.file).parent)


def _ends(model: onnx.ModelProto, values: Mapping[str, Range]) -> dict[str, list[Ends]]:
    """What was measured around each convolution, by the digest of its weights, in the order of the graph."""
    weights, found = initializers(model), dict[str, list[Ends]]()
    for node in uses(model):
        if node.op_type == "Conv":
            before, after = ends(model, node)
            found.setdefault(weights_digest(weights[node.input[1]]), []).append(Ends(values[before], values[after]))
    return found
