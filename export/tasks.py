"""A pack of several tasks: their graphs for each target, whose files share one store of weights.

Each task is exported as a pack of its own, which is then joined with the others. So a task in a pack of several does
what it does alone; what is added per task is what differs: its adapters, the low-rank factors of its predictor, and the
graphs, without weights.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx

from ..core.errors import PhotoWriteError, UsageError
from ..core.files import failure_reason
from ..core.models import checkpoints
from ..core.models.lora import is_factor
from ..core.pack.manifest import Golden, GraphSpec, Manifest, PackedFile, TaskFacts, mirror
from ..core.pack.store import SHARED, packed_file
from .coreml.package import Package
from .coreml.package import write as write_package
from .dtpm import DtpmSource
from .pack import write_pack
from .place import check_place
from .quantization.files import Written, package_parts
from .sharing import METADATA, Store, joined_packages, shared_ir, shared_onnx

__all__ = ["check_prior", "join", "write_tasks"]

SYSTEM = "iOS18"  # the first whose packages may hold several functions
OWN = {field.name for field in fields(TaskFacts)}


def write_tasks(sources: Sequence[DtpmSource], folder: Path, *, name: str, **options: Any) -> Manifest:
    """Export the checkpoints of several tasks around one prior to one pack; options: those of `write_pack`.

    The first checkpoint is the task that is run where none is named. Raises UsageError for checkpoints that do not
    share what they must, and as `write_pack` does.
    """
    check_prior([source.model for source in sources])
    options |= {"system": _system(options.get("system"), options.get("targets", ()))}
    check_place(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            alone = [Path(temporary) / f"{number}" for number in range(len(sources))]
            for source, place in zip(sources, alone, strict=True):
                write_pack(source, place, name=f"{name}, {source.task()}", **options)
            draft = Path(temporary) / folder.name
            manifest = join(alone, draft, name=name)
            shutil.move(draft, folder)
    except OSError as error:
        raise PhotoWriteError(f"the pack {folder} cannot be written: {failure_reason(error)}") from error
    return manifest


def _system(given: str | None, targets: Sequence[str]) -> str | None:
    if "coreml" not in targets:
        return given
    if given not in (None, SYSTEM):
        raise UsageError(
            f"the system {given} was given; Core ML packages of several tasks need {SYSTEM}, the first that has "
            "functions: leave the option out"
        )
    return SYSTEM


def check_prior(paths: Sequence[Path]) -> None:
    """Raise UsageError unless these DTPM checkpoints are of different tasks and share prior and predictor, bit by bit.

    A predictor may have low-rank factors of its own beside the weights that it shares.
    """
    first, *others = (checkpoints.load(path, "dtpm") for path in paths)
    tasks = [checkpoint.facts["task"] for checkpoint in (first, *others)]
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"checkpoints of the tasks {', '.join(tasks)} were given; give one of each task")
    for path, other in zip(paths[1:], others, strict=True):
        for part, advice in (
            ("denoiser", "train its adapters with the same --prior, and with film_rate=0"),
            ("predictor", f"train its predictor with: pocketprior train dtpm delta --dtpm {paths[0]}"),
        ):
            ours, theirs = (_shared_part(checkpoint, part) for checkpoint in (first, other))
            different = checkpoints.misfits(ours, theirs) or [n for n in ours if not ours[n].equal(theirs[n])]
            if different:
                raise UsageError(
                    f"{path} and {paths[0]} do not share their {part} (the weight '{different[0]}' differs); {advice}"
                )


def _shared_part(checkpoint: checkpoints.Checkpoint, part: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in checkpoint.part(part).items() if not is_factor(name)}


def join(packs: Sequence[Path], folder: Path, *, name: str) -> Manifest:
    """Make one pack of packs of one task each, in the new folder `folder`; the first task is the default.

    Raises UsageError for packs that differ in more than a task may have of its own.
    """
    manifests = [Manifest.load(pack) for pack in packs]
    _check_alike(manifests)
    folder.mkdir()
    draft = _Draft(folder)
    for manifest, pack in zip(manifests, packs, strict=True):
        draft.add(pack, manifest)
    cards = [(pack / "CARD.md").read_text(encoding="utf-8") for pack in packs]
    (folder / "CARD.md").write_text("\n".join(cards), encoding="utf-8")
    first, *others = draft.finished()
    joined = replace(
        first,
        name=name,
        tasks=tuple(manifest.tasks[0] for manifest in manifests),
        card=packed_file(folder, "CARD.md"),
        further={other.tasks[0]: TaskFacts(**{n: getattr(other, n) for n in OWN}) for other in others},
    )
    joined.save(folder)
    return joined


def _check_alike(manifests: Sequence[Manifest]) -> None:
    first, *others = manifests
    several = [manifest.name for manifest in manifests if len(manifest.tasks) > 1]
    if several:
        raise UsageError(f"the pack '{several[0]}' has several tasks; join packs of one task each")
    shared = [f.name for f in fields(Manifest) if f.name not in OWN | {"name", "tasks", "card"}]
    for other in others:
        for field in shared:
            ours, theirs = getattr(first, field), getattr(other, field)
            if ours != theirs:
                raise UsageError(
                    f"the task '{other.tasks[0]}' has {field} {theirs}, the task '{first.tasks[0]}' {ours}; "
                    "tasks of one pack sample in the same way: export checkpoints of one chain"
                )


class _Draft:
    """The files of a pack that is being joined; those of the first task keep their names, as do its functions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stores = {target: Store() for target in SHARED}
        self.known: dict[tuple[str, str, str], dict[bytes, str]] = {}
        self.packages: dict[str, dict[str, Package]] = {}
        self.metadata: dict[str, str] = {}
        self.tasks: list[tuple[Manifest, dict[tuple[str, str, str], str]]] = []

    def add(self, pack: Path, manifest: Manifest) -> None:
        """Write what a task has of its own; what another has too is that one's."""
        task, places = manifest.tasks[0], dict[tuple[str, str, str], str]()
        prefix = f"{task}." if self.tasks else ""
        for graph, spec in manifest.graphs.items():
            for target, files in spec.files.items():
                for label, packed in files.items():
                    key = (graph, target, label)
                    if target == "coreml":
                        package = Package.read((pack / packed.file).parent)
                        self.packages.setdefault(label, {})[_function(task, graph) if prefix else graph] = package
                        self.metadata[f"pocketprior.manifest.{task}"] = mirror(manifest)
                    else:
                        content, same = self.shared(target, pack / packed.file)
                        places[key] = self.known.setdefault(key, {}).setdefault(same, prefix + packed.file)
                        if not (self.folder / places[key]).exists():
                            (self.folder / places[key]).write_bytes(content)
        self.tasks.append((replace(manifest, golden=self.golden(pack, manifest, prefix)), places))

    def shared(self, target: str, path: Path) -> tuple[bytes, bytes]:
        """A graph file with its constants in the store; and without the facts of its task, to tell equal ones."""
        if target == "onnx":
            model = shared_onnx(onnx.load(path), self.stores[target])
            content = model.SerializeToString(deterministic=True)
            del model.metadata_props[:]
            return content, model.SerializeToString(deterministic=True)
        xml, weights = path.read_text(encoding="utf-8"), path.with_suffix(".bin").read_bytes()
        root = shared_ir(xml, weights, self.stores[target])
        content = ElementTree.tostring(root, xml_declaration=True)
        for facts in root.findall(METADATA):
            root.remove(facts)
        return content, ElementTree.tostring(root)

    def golden(self, pack: Path, manifest: Manifest, prefix: str) -> dict[str, Golden]:
        found: dict[str, Golden] = {}
        for name, golden in manifest.golden.items():
            place = Path(golden.file.file)
            file = (place.parent / (prefix + place.name)).as_posix()
            (self.folder / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(pack / place, self.folder / file)
            found[name] = replace(golden, file=packed_file(self.folder, file))
        return found

    def finished(self) -> list[Manifest]:
        """The manifest of each task, when all are there."""
        shared: dict[str, tuple[PackedFile, ...]] = {}
        for target, store in self.stores.items():
            if store.data:
                (self.folder / SHARED[target]).write_bytes(store.data)
                shared[target] = (packed_file(self.folder, SHARED[target]),)
        packed: dict[str, Written] = {}
        for label, packages in self.packages.items():
            write_package(joined_packages(packages, self.metadata), self.folder / f"{label}.mlpackage")
            packed[label] = package_parts(self.folder, f"{label}.mlpackage", label)
        return [
            replace(
                manifest,
                graphs={
                    graph: self.spec(graph, spec, places, shared, packed, manifest.tasks[0] if further else "")
                    for graph, spec in manifest.graphs.items()
                },
            )
            for further, (manifest, places) in enumerate(self.tasks)
        ]

    def spec(
        self,
        graph: str,
        spec: GraphSpec,
        places: Mapping[tuple[str, str, str], str],
        shared: Mapping[str, tuple[PackedFile, ...]],
        packed: Mapping[str, Written],
        task: str,
    ) -> GraphSpec:
        """The files of a graph; task: "" for the first."""
        files: dict[str, dict[str, PackedFile]] = {}
        parts: dict[str, dict[str, tuple[PackedFile, ...]]] = {}
        for target, before in spec.files.items():
            coreml = target == "coreml"
            files[target] = {
                label: packed[label].file if coreml else packed_file(self.folder, places[graph, target, label])
                for label in before
            }
            parts[target] = {label: packed[label].parts if coreml else shared[target] for label in before}
        function = _function(task, graph) if task and "coreml" in files else ""
        return replace(spec, files=files, parts=parts, function=function)


def _function(task: str, graph: str) -> str:
    """The name of a further task's graph in a Core ML package."""
    return f"{task}__{graph}"
