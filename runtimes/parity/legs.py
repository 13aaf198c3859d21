"""The way from the reference to what is shipped, one change at a time: which files, in which runtime and arithmetic.

    reference -> conversion -> runtime -> precision -> quantization

Each leg differs from the one before in what its stage is named after, so that the error of a stage is the difference
between two neighbours on the same inputs. A leg that a pack has no files for is left out, and said to be.
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
from ...core.restore.restorer import Graph
from .. import RUNTIMES, open_graphs
from ..options import arithmetic_of
from .recording import facts_of

__all__ = ["BASE", "CLASSES", "FLOAT", "STAGES", "Chain", "Leg", "Pack", "chain", "described", "float_leg"]

BASE = "onnxruntime"  # what other runtimes are compared with
FLOAT = "fp32"
HALVES = ("fp16", "bf16")
STAGES = ("conversion", "runtime", "precision", "quantization")
CLASSES = {"conversion": "fp32", "runtime": "fp32", "precision": "half", "quantization": "coded"}


class Pack(NamedTuple):
    """A folder and its manifest."""

    folder: Path
    manifest: Manifest


@dataclass(frozen=True)
class Leg:
    """Files of one target in one runtime; `manifest` lists these alone.

    arithmetic: None for what the manifest says of each graph. opened: its graphs, each once it was asked for.
    """

    stage: str
    folder: Path
    manifest: Manifest
    runtime: str
    arithmetic: str | None
    opened: dict[str, Graph] = field(default_factory=dict[str, Graph], compare=False, repr=False)

    @property
    def target(self) -> str:
        """Whose files these are."""
        return next(iter(self.manifest.precision))

    def file(self, graph: str) -> Path:
        """Where one of its graphs is."""
        return self.folder / self.manifest.graph_file(graph, self.target).file

    def open(self, names: Sequence[str], threads: int | None = None) -> dict[str, Graph]:
        """These of its graphs, opened only once. Raises as `open_graphs` does."""
        fresh = [name for name in names if name not in self.opened]
        self.opened.update(
            open_graphs(
                self.manifest, self.folder, self.runtime, names=fresh, threads=threads, arithmetic=self.arithmetic
            )
        )
        return {name: self.opened[name] for name in names}

    def __str__(self) -> str:
        labels = ", ".join(dict.fromkeys(self.manifest.precision[self.target].values()))
        return f"{labels} {self.target} in {described(self.runtime)}, {self.arithmetic or 'as packed'}"


class Chain(NamedTuple):
    """The legs in their order, the last of which is shipped; and why the stages that are missing were not measured.

    kind: the class of `limits.py` that what is shipped falls into.
    """

    legs: Sequence[Leg]
    missing: Mapping[str, str]
    kind: str


def chain(
    pack: Pack,
    runtime: str,
    arithmetic: str | None = None,
    floats: Pack | None = None,
    precision: str | None = None,
) -> Chain:
    """What there is to compare when `pack` is run in a runtime.

    arithmetic, precision: None for what the manifest says. floats: the pack that it was quantized from. Raises
    UnknownNameError for a runtime or precision that does not exist, UsageError where `floats` is of another model,
    PackError for a pack that the runtime has no graphs of.
    """
    if floats is not None and _model(floats.manifest) != _model(pack.manifest):
        raise UsageError(f"--float {floats.folder} is of another model than {pack.folder}; give what it was made from")
    target, targets = _target(pack.manifest, runtime)
    labels = _labels(pack.manifest, target, precision)
    bases = {label.partition("+")[0] for label in labels.values()}
    narrow = {arithmetic or arithmetic_of(label, target) for label in labels.values()} - {FLOAT}
    half, coded = bool(narrow) or not bases.isdisjoint(HALVES), not bases <= {FLOAT, *HALVES}
    legs = _float_legs([pack, *([floats] if floats else [])], runtime, (target, *targets), list(labels))
    floating = legs[-1] if legs and legs[-1].runtime == runtime else None
    if coded and narrow and floating:
        legs.append(replace(floating, stage="precision", arithmetic=min(narrow), opened={}))
    if coded or half:
        stage = "quantization" if coded else "precision"
        legs.append(Leg(stage, pack.folder, _variant(pack.manifest, target, labels), runtime, arithmetic))
    kind = "coded" if coded else "half" if half else "fp32"
    return Chain(legs, _missing({leg.stage for leg in legs}, runtime, bool(narrow), coded), kind)


def _module(runtime: str) -> ModuleType:
    if runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    return import_module(f"..{runtime}", __package__)


def _model(manifest: Manifest) -> tuple[str, str | None]:
    return facts_of(manifest), manifest.made_by.get("checkpoint")


def described(runtime: str) -> str:
    """The runtime, and of one that has several engines which of them runs here."""
    engine = getattr(_module(runtime), "engine", None)
    return runtime if engine is None else f"{runtime} ({engine()})"


def float_leg(pack: Pack) -> Leg | None:
    """Its float32 graphs in ONNX Runtime, as far as it has them."""
    found = _float_files([pack], ("onnx",), list(pack.manifest.graphs))
    return None if found is None else Leg("conversion", *found, BASE, FLOAT)


def _labels(manifest: Manifest, target: str, precision: str | None) -> dict[str, str]:
    """Which file of each graph is run; a graph that a precision does not change has none of its own."""
    if precision is None:
        return dict(manifest.precision[target])
    offered = {name: spec.files.get(target, {}) for name, spec in manifest.graphs.items()}
    known = dict.fromkeys(label for files in offered.values() for label in files)
    if precision not in known:
        raise UnknownNameError(f"precision of {target}", precision, known)
    labels = {name: precision if precision in files else FLOAT for name, files in offered.items()}
    missing = [name for name, label in labels.items() if label not in offered[name]]
    if missing:
        raise UsageError(
            f"{precision} was asked for, of which the pack '{manifest.name}' has no file of the graph '{missing[0]}'; "
            f"choose one of: {', '.join(known)}"
        )
    return labels


def _target(manifest: Manifest, runtime: str) -> tuple[str, tuple[str, ...]]:
    """Whose files a runtime runs of this pack, and whose it could."""
    targets = _module(runtime).TARGETS
    found = next((target for target in targets if target in manifest.precision), None)
    if found is None:
        raise PackError(
            f"the pack '{manifest.name}' has no graphs for {runtime}; it has: {', '.join(manifest.precision)}"
        )
    return found, targets


def _float_legs(sources: Sequence[Pack], runtime: str, targets: Sequence[str], graphs: Sequence[str]) -> list[Leg]:
    """What is float32 all through: in ONNX Runtime, then in the runtime itself."""
    legs: list[Leg] = []
    for stage, name, own in (("conversion", BASE, ("onnx",)), ("runtime", runtime, targets)):
        if stage == "runtime" and runtime == BASE:
            continue
        found = _float_files(sources, own, graphs)
        if found is not None:
            legs.append(Leg(stage if legs else "conversion", *found, name, FLOAT))
    return legs


def _float_files(
    sources: Sequence[Pack], targets: Sequence[str], graphs: Sequence[str]
) -> tuple[Path, Manifest] | None:
    """The first pack and target that has float32 files of all graphs."""
    for target in targets:
        for folder, manifest in sources:
            specs = [manifest.graphs.get(name) for name in graphs]
            if all(spec is not None and FLOAT in spec.files.get(target, {}) for spec in specs):
                return folder, _variant(manifest, target, dict.fromkeys(manifest.graphs, FLOAT))
    return None


def _variant(manifest: Manifest, target: str, labels: Mapping[str, str]) -> Manifest:
    """The manifest with the files of one target alone, of which those with these labels are run."""
    graphs = {
        name: replace(
            spec,
            files={target: spec.files[target]},
            parts={target: spec.parts[target]} if target in spec.parts else {},
        )
        for name, spec in manifest.graphs.items()
    }
    return replace(manifest, graphs=graphs, precision={target: labels})


def _missing(measured: Set[str], runtime: str, narrow: bool, coded: bool) -> dict[str, str]:
    """Why stages were not measured."""
    no_float = "the pack has no float32 graphs; name the pack that it was made from with --float"
    same = f"{BASE} is what other runtimes are compared with"
    alone = f"the pack has no float32 graphs for {BASE} to compare with"
    reasons = {
        "conversion": no_float,
        "runtime": same if runtime == BASE else alone,
        "precision": no_float if narrow else "nothing is computed in 16 bits",
        "quantization": no_float if coded else "nothing has fewer than 16 bits",
    }
    return {stage: reasons[stage] for stage in STAGES if stage not in measured}
