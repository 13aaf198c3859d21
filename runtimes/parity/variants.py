"""The way from the reference to what is shipped, one change at a time: which files, in which runtime and arithmetic.

    reference -> conversion -> runtime -> precision -> quantization

Each variant differs from the one before in what its error source is named after: the error of a source is the
difference between two neighbours on the same inputs. A variant without files in the pack is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ...core.errors import PackError, UnknownNameError, UsageError
from ...core.pack.manifest import Manifest
from ...core.restore.restorer import Graph, Restorer, graph_names
from .. import RUNTIMES, open_graphs
from ..options import arithmetic_of
from .reference import facts_of

__all__ = ["PackFolder", "Variant", "VariantChain", "described", "float_variant", "variant_chain"]

BASE = "onnxruntime"  # what other runtimes are compared with
FP32 = "fp32"
HALF_PRECISIONS = ("fp16", "bf16")
ERROR_SOURCES = ("conversion", "runtime", "precision", "quantization")
LIMIT_OF = {
    "conversion": "fp32",
    "runtime": "fp32",
    "precision": "half",
    "quantization": "coded",
}  # source -> class of `limits.py`


class PackFolder(NamedTuple):
    """A folder and its manifest."""

    folder: Path
    manifest: Manifest


@dataclass(frozen=True)
class Variant:
    """Files of one target in one runtime."""

    source: str  # what its difference from the variant before is
    folder: Path
    manifest: Manifest  # lists only these files
    runtime: str
    arithmetic: str | None  # None for what the manifest says of each graph
    opened: dict[str, Graph] = field(default_factory=dict[str, Graph], compare=False, repr=False)

    @property
    def target(self) -> str:
        """The target of its files."""
        return next(iter(self.manifest.precision))

    def file(self, graph: str) -> Path:
        """The file of one of its graphs."""
        return self.folder / self.manifest.graph_file(graph, self.target).file

    def open(self, names: Sequence[str], threads: int | None = None) -> dict[str, Graph]:
        """These of its graphs, each opened only once; raises as `open_graphs` does."""
        fresh = [name for name in names if name not in self.opened]
        self.opened.update(
            open_graphs(
                self.manifest, self.folder, self.runtime, names=fresh, threads=threads, arithmetic=self.arithmetic
            )
        )
        return {name: self.opened[name] for name in names}

    def restorer(self, form: str, threads: int | None = None) -> Restorer:
        """A restorer in one form, "split" or "fused"; raises as `open_graphs` does."""
        return Restorer(self.manifest, self.open(graph_names(self.manifest, form), threads))

    def __str__(self) -> str:
        labels = ", ".join(dict.fromkeys(self.manifest.precision[self.target].values()))
        return f"{labels} {self.target} in {described(self.runtime)}, {self.arithmetic or 'as packed'}"


class VariantChain(NamedTuple):
    """The variants that are compared, one after the other."""

    variants: Sequence[Variant]  # the last of them is shipped
    missing: Mapping[str, str]  # error source -> why it was not measured
    kind: str  # the class of `limits.py` of what is shipped


def variant_chain(
    pack: PackFolder,
    runtime: str,
    arithmetic: str | None = None,
    floats: PackFolder | None = None,
    precision: str | None = None,
) -> VariantChain:
    """What there is to compare when `pack` is run in a runtime.

    Args:
        pack: The pack.
        runtime: What runs it.
        arithmetic: None for what the manifest says.
        floats: The pack that it was quantized from.
        precision: Of the files; None for what the manifest says.

    Raises:
        UnknownNameError: There is no such runtime or precision.
        UsageError: `floats` is of another model.
        PackError: The pack has no graphs for the runtime.
    """
    if floats is not None and _model(floats.manifest) != _model(pack.manifest):
        raise UsageError(
            f"--float {floats.folder} is of another model than {pack.folder}; give the pack that it was quantized from"
        )
    target, targets = _target(pack.manifest, runtime)
    labels = _labels(pack.manifest, target, precision)
    bases = {label.partition("+")[0] for label in labels.values()}
    narrow = {arithmetic or arithmetic_of(label, target) for label in labels.values()} - {FP32}
    half, quantized = bool(narrow) or not bases.isdisjoint(HALF_PRECISIONS), not bases <= {FP32, *HALF_PRECISIONS}
    variants = _float_variants([pack, *([floats] if floats else [])], runtime, (target, *targets), list(labels))
    floating = variants[-1] if variants and variants[-1].runtime == runtime else None
    if quantized and narrow and floating:
        variants.append(replace(floating, source="precision", arithmetic=min(narrow), opened={}))
    if quantized or half:
        source = "quantization" if quantized else "precision"
        variants.append(Variant(source, pack.folder, _restricted(pack.manifest, target, labels), runtime, arithmetic))
    kind = "coded" if quantized else "half" if half else "fp32"
    return VariantChain(
        variants, _missing({variant.source for variant in variants}, runtime, bool(narrow), quantized), kind
    )


def _module(runtime: str) -> ModuleType:
    if runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    return import_module(f"..{runtime}", __package__)


def _model(manifest: Manifest) -> tuple[str, str | None]:
    return facts_of(manifest), manifest.made_by.get("checkpoint")


def described(runtime: str) -> str:
    """The runtime, with its engine on this machine if it has several."""
    engine = getattr(_module(runtime), "engine", None)
    return runtime if engine is None else f"{runtime} ({engine()})"


def float_variant(pack: PackFolder) -> Variant | None:
    """Its float32 graphs in ONNX Runtime, None if it has none."""
    found = _float_files([pack], ("onnx",), list(pack.manifest.graphs))
    return None if found is None else Variant("conversion", *found, BASE, FP32)


def _labels(manifest: Manifest, target: str, precision: str | None) -> dict[str, str]:
    """Which file of each graph is run; a graph that a precision does not change has none of its own."""
    if precision is None:
        return dict(manifest.precision[target])
    offered = {name: spec.files.get(target, {}) for name, spec in manifest.graphs.items()}
    known = dict.fromkeys(label for files in offered.values() for label in files)
    if precision not in known:
        raise UnknownNameError(f"precision of {target}", precision, known)
    labels = {name: precision if precision in files else FP32 for name, files in offered.items()}
    missing = [name for name, label in labels.items() if label not in offered[name]]
    if missing:
        raise UsageError(
            f"the pack '{manifest.name}' has no {precision} file of the graph '{missing[0]}'; choose one of: "
            f"{', '.join(known)}"
        )
    return labels


def _target(manifest: Manifest, runtime: str) -> tuple[str, tuple[str, ...]]:
    """The target whose files a runtime runs of this pack, and all that it could run."""
    targets = _module(runtime).TARGETS
    found = next((target for target in targets if target in manifest.precision), None)
    if found is None:
        raise PackError(
            f"the pack '{manifest.name}' has no graphs for {runtime}; it has: {', '.join(manifest.precision)}"
        )
    return found, targets


def _float_variants(
    packs: Sequence[PackFolder], runtime: str, targets: Sequence[str], graphs: Sequence[str]
) -> list[Variant]:
    """The float32 graphs: in ONNX Runtime, then in the runtime itself."""
    variants: list[Variant] = []
    for source, name, own in (("conversion", BASE, ("onnx",)), ("runtime", runtime, targets)):
        if source == "runtime" and runtime == BASE:
            continue
        found = _float_files(packs, own, graphs)
        if found is not None:
            variants.append(Variant(source if variants else "conversion", *found, name, FP32))
    return variants


def _float_files(
    packs: Sequence[PackFolder], targets: Sequence[str], graphs: Sequence[str]
) -> tuple[Path, Manifest] | None:
    """The first pack and target with float32 files of all graphs."""
    for target in targets:
        for folder, manifest in packs:
            specs = [manifest.graphs.get(name) for name in graphs]
            if all(spec is not None and FP32 in spec.files.get(target, {}) for spec in specs):
                return folder, _restricted(manifest, target, dict.fromkeys(manifest.graphs, FP32))
    return None


def _restricted(manifest: Manifest, target: str, labels: Mapping[str, str]) -> Manifest:
    """The manifest with only the files of one target, of which those with these labels are run."""
    graphs = {
        name: replace(
            spec,
            files={target: spec.files[target]},
            parts={target: spec.parts[target]} if target in spec.parts else {},
        )
        for name, spec in manifest.graphs.items()
    }
    return replace(manifest, graphs=graphs, precision={target: labels})


def _missing(measured: Set[str], runtime: str, narrow: bool, quantized: bool) -> dict[str, str]:
    """Why error sources were not measured."""
    no_float = "the pack has no float32 graphs; name the pack that it was made from with --float"
    same = f"{BASE} is what other runtimes are compared with"
    alone = f"the pack has no float32 graphs for {BASE} to compare with"
    reasons = {
        "conversion": no_float,
        "runtime": same if runtime == BASE else alone,
        "precision": no_float if narrow else "nothing is computed in 16 bits",
        "quantization": no_float if quantized else "nothing has fewer than 16 bits",
    }
    return {source: reasons[source] for source in ERROR_SOURCES if source not in measured}
