"""The way from the reference to what is shipped, one change at a time: which files, in which runtime and arithmetic.

    reference -> conversion -> runtime -> precision -> quantization

Each variant differs from the one before in what its error source is named after: the error of a source is the
difference between two neighbours on the same inputs. A variant without files in the pack is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ...core.errors import UnknownNameError, UsageError
from ...core.pack.manifest import GraphSpec, Manifest
from ...core.restore.reference import facts_of
from ...core.restore.restorer import Graph, Restorer, graph_names
from .. import open_graphs, runtime_module, target_for
from ..options import arithmetic_of

__all__ = ["CompareOptions", "PackFolder", "Variant", "VariantChain", "described", "float_variant", "variant_chain"]

BASE = "onnxruntime"  # what other runtimes are compared with
FP32 = "fp32"
HALF_PRECISIONS = ("fp16", "bf16")
ERROR_SOURCES = ("conversion", "runtime", "precision", "quantization")
# source -> class of `limits.py`
LIMIT_OF = {"conversion": "fp32", "runtime": "fp32", "precision": "half", "quantization": "coded"}


class CompareOptions(NamedTuple):
    """How `compare` runs a pack, and what it compares with."""

    runtime: str = "onnxruntime"
    arithmetic: str | None = None  # of numbers other than integers; None for the pack's own
    precision: str | None = None  # of the files; None for the pack's own
    against: Path | None = None  # a reference; None for the golden restorations of the pack
    floats: Path | None = None  # the pack that it was quantized from
    layers: bool = False  # whether to compare the layers of graphs
    threads: int | None = None  # for one graph call; None for the runtime's own choice
    task: str | None = None  # of a pack whose tasks have graphs of their own; None for the first


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
    arithmetic: str | None = None  # None for what the manifest says of each graph
    threads: int | None = None  # for one graph call; None for the runtime's own choice
    opened: dict[str, Graph] = field(default_factory=dict[str, Graph], compare=False, repr=False)

    @property
    def target(self) -> str:
        """The target of its files."""
        return next(iter(self.manifest.precision))

    def file(self, graph: str) -> Path:
        """The file of one of its graphs."""
        return self.folder / self.manifest.graph_file(graph, self.target).file

    def open(self, names: Sequence[str]) -> dict[str, Graph]:
        """These of its graphs, each opened only once; raises as `open_graphs` does."""
        fresh = [name for name in names if name not in self.opened]
        opened = open_graphs(
            self.manifest, self.folder, self.runtime, names=fresh, threads=self.threads, arithmetic=self.arithmetic
        )
        self.opened.update(opened)
        return {name: self.opened[name] for name in names}

    def restorer(self, form: str) -> Restorer:
        """A restorer in one form, "split" or "fused"; raises as `open_graphs` does."""
        return Restorer(self.manifest, self.open(graph_names(self.manifest, form)))

    def __str__(self) -> str:
        labels = ", ".join(dict.fromkeys(self.manifest.precision[self.target].values()))
        return f"{labels} {self.target} in {described(self.runtime)}, {self.arithmetic or 'as packed'}"


class VariantChain(NamedTuple):
    """The variants that are compared, one after the other."""

    variants: Sequence[Variant]  # the last of them is shipped
    missing: Mapping[str, str]  # error source -> why it was not measured
    kind: str  # the class of `limits.py` of what is shipped


def variant_chain(pack: PackFolder, options: CompareOptions, floats: PackFolder | None = None) -> VariantChain:
    """What there is to compare when `pack` is run with `options`; `floats` is the pack that it was quantized from.

    Raises UnknownNameError for a runtime or precision that does not exist, UsageError for `floats` of another model,
    PackError for a pack without graphs for the runtime.
    """
    if floats is not None and _model(floats.manifest) != _model(pack.manifest):
        raise UsageError(
            f"--float {floats.folder} is of another model than {pack.folder}; give the pack that it was quantized from"
        )
    runtime, arithmetic, threads = options.runtime, options.arithmetic, options.threads
    target = target_for(pack.manifest, runtime)
    labels = _labels(pack.manifest, target, options.precision)
    bases = {label.partition("+")[0] for label in labels.values()}
    narrow = {arithmetic or arithmetic_of(label, target) for label in labels.values()} - {FP32}
    half, quantized = bool(narrow) or not bases.isdisjoint(HALF_PRECISIONS), not bases <= {FP32, *HALF_PRECISIONS}
    variants: list[Variant] = []
    packs = [pack] if floats is None else [pack, floats]
    ways = {BASE: runtime_module(BASE).TARGETS, runtime: (target, *runtime_module(runtime).TARGETS)}
    for name, targets in ways.items():
        found = _float_files(packs, targets, list(labels))
        if found is not None:
            variants.append(Variant("runtime" if variants else "conversion", *found, name, FP32, threads))
    if quantized and narrow and variants and variants[-1].runtime == runtime:
        variants.append(replace(variants[-1], source="precision", arithmetic=min(narrow), opened={}))
    if quantized or half:
        source, manifest = "quantization" if quantized else "precision", _restricted(pack.manifest, target, labels)
        variants.append(Variant(source, pack.folder, manifest, runtime, arithmetic, threads))
    kind = "coded" if quantized else "half" if half else "fp32"
    measured = {variant.source for variant in variants}
    return VariantChain(variants, _missing(measured, runtime, bool(narrow), quantized), kind)


def _model(manifest: Manifest) -> tuple[str, str | None]:
    return facts_of(manifest), manifest.made_by.get("checkpoint")


def described(runtime: str) -> str:
    """The runtime, with its engine on this machine if it has several."""
    engine = getattr(runtime_module(runtime), "engine", None)
    return runtime if engine is None else f"{runtime} ({engine()})"


def float_variant(pack: PackFolder) -> Variant | None:
    """Its float32 graphs in ONNX Runtime, None if it has none."""
    found = _float_files([pack], runtime_module(BASE).TARGETS, list(pack.manifest.graphs))
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
    for name, label in labels.items():
        if label not in offered[name]:
            raise UsageError(
                f"the pack '{manifest.name}' has no {precision} file of the graph '{name}'; choose one of: "
                f"{', '.join(known)}"
            )
    return labels


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
    graphs: dict[str, GraphSpec] = {}
    for name, spec in manifest.graphs.items():
        parts = {other: files for other, files in spec.parts.items() if other == target}
        graphs[name] = replace(spec, files={target: spec.files[target]}, parts=parts)
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
