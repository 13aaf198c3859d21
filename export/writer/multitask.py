"""Checkpoints become a pack: that of one task, or of several, whose files share their weights for each target.

Each task is exported as a pack of its own, which is then joined with the others: a task in a pack of several does what
it does in a pack of one. What is added per task is what differs: its adapters, the low-rank factors of its predictor,
and the graphs, without weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from ...core.errors import UsageError
from ...core.models import checkpoints
from ...core.models.lora import is_factor
from ...core.pack.manifest import Golden, Manifest, TaskFacts
from ...core.pack.store import packed_file
from ...core.photo.listing import released_photos
from ..systems import SamplingOptions, source_of
from ..systems.dtpm import DtpmSource
from ..targets import Joined, TaskPack, target_of, targets_of
from .pack import PackOptions, new_pack, write_pack

__all__ = ["check_prior", "export", "join", "write_tasks"]

_OWN = {field.name for field in fields(TaskFacts)}
_PHOTOS = 24  # validation photos, from which 8 bits get their ranges


def export(
    checkpoints: Sequence[Path],
    folder: Path,
    data: Path,
    options: PackOptions | None = None,
    sampling: SamplingOptions | None = None,
) -> Manifest:
    """Write a pack from trained checkpoints; returns its manifest.

    Args:
        checkpoints: A model.safetensors of any system, or those of several DTPMs that share their prior, one per task.
        folder: Of the pack; it must not exist.
        data: Folder of clean photos; of a data folder its `val` photos are taken.
        options: What the pack holds; None for float32 ONNX graphs.
        sampling: How the model samples; None for the defaults of its system.

    Raises:
        UsageError: The checkpoints cannot share a pack, or one cannot have these options.
        PocketPriorError: As `write_pack`.
    """
    options, photos = options or PackOptions(), released_photos(data, split="val")[:_PHOTOS]
    sources = [source_of(checkpoint, sampling or SamplingOptions()) for checkpoint in checkpoints]
    if len(sources) == 1:
        return write_pack(sources[0], folder, photos, options)
    shared = [source for source in sources if isinstance(source, DtpmSource)]
    if len(shared) < len(sources) or not sources:
        raise UsageError("only checkpoints of DTPMs can share a pack; export the others one at a time")
    return write_tasks(shared, folder, photos, options)


def write_tasks(sources: Sequence[DtpmSource], folder: Path, photos: Sequence[Path], options: PackOptions) -> Manifest:
    """Export checkpoints of several tasks around one prior to one pack; as `write_pack`.

    The first checkpoint is the task that is run where none is named. Raises UsageError as `check_prior` and `join` do.
    """
    check_prior([source.model for source in sources])
    options = replace(options, deployment_target=_deployment_target(options), name=options.name or folder.name)
    with new_pack(folder) as pack:
        singles = [pack.with_name(f"{pack.name}.{number}") for number in range(len(sources))]
        for source, single in zip(sources, singles, strict=True):
            write_pack(source, single, photos, replace(options, name=f"{options.name}, {source.task()}"))
        return join(singles, pack, name=options.name)


def _deployment_target(options: PackOptions) -> str | None:
    needed = {target.name: target.joined_deployment_target for target in targets_of(options.targets)}
    for name, only in needed.items():
        if only and options.deployment_target not in (None, only):
            raise UsageError(
                f"--system {options.deployment_target} was given; {name} files of several tasks need {only}, the first "
                "that can hold several graphs: leave the option out"
            )
    return next(filter(None, needed.values()), options.deployment_target)


def check_prior(paths: Sequence[Path]) -> None:
    """Raise UsageError unless these DTPM checkpoints are of different tasks and share prior and predictor, bit by bit.

    A predictor may have low-rank factors of its own in addition to the weights that it shares.
    """
    first, *others = (checkpoints.load(path, "dtpm") for path in paths)
    tasks = [checkpoint.facts["task"] for checkpoint in (first, *others)]
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"checkpoints of the tasks {', '.join(tasks)} were given; give one of each task")
    advice = {
        "denoiser": "train its adapters with the same --prior, and with film_rate=0",
        "predictor": f"train its predictor with: pocketprior train dtpm delta --dtpm {paths[0]}",
    }
    for path, other in zip(paths[1:], others, strict=True):
        for part in advice:
            parts = (checkpoint.part(part) for checkpoint in (first, other))
            ours, theirs = ({name: own[name] for name in own if not is_factor(name)} for own in parts)
            different = checkpoints.misfits(ours, theirs) or [n for n in ours if not ours[n].equal(theirs[n])]
            if different:
                raise UsageError(
                    f"{path} and {paths[0]} do not share their {part} (the weight '{different[0]}' differs); "
                    f"{advice[part]}"
                )


def join(packs: Sequence[Path], folder: Path, *, name: str) -> Manifest:
    """Join packs of one task each into one pack, in the new folder `folder`; the first task is the default.

    Raises UsageError for packs that differ in more than a task may have of its own.
    """
    manifests = [Manifest.load(pack) for pack in packs]
    _check_alike(manifests)
    tasks = [
        TaskPack(pack, manifest, f"{manifest.tasks[0]}." if number else "")
        for number, (pack, manifest) in enumerate(zip(packs, manifests, strict=True))
    ]
    folder.mkdir()
    joined: dict[str, Joined] = {}
    for target in {target: None for spec in manifests[0].graphs.values() for target in spec.files}:
        write = target_of(target).join
        if write is None:
            raise UsageError(f"{target} files cannot hold several tasks; export a pack for each, or leave {target} out")
        joined[target] = write(tasks, folder)
    first, *others = (_in_joined(task, folder, joined) for task in tasks)
    cards = [(pack / "CARD.md").read_text(encoding="utf-8") for pack in packs]
    (folder / "CARD.md").write_text("\n".join(cards), encoding="utf-8")
    whole = replace(
        first,
        name=name,
        tasks=tuple(task.task for task in tasks),
        card=packed_file(folder, "CARD.md"),
        further={other.tasks[0]: TaskFacts(**{n: getattr(other, n) for n in _OWN}) for other in others},
    )
    whole.save(folder)
    return whole


def _check_alike(manifests: Sequence[Manifest]) -> None:
    first, *others = manifests
    several = [manifest.name for manifest in manifests if len(manifest.tasks) > 1]
    if several:
        raise UsageError(f"the pack '{several[0]}' has several tasks; join packs of one task each")
    shared = [f.name for f in fields(Manifest) if f.name not in _OWN | {"name", "tasks", "card"}]
    for other in others:
        for field in shared:
            ours, theirs = getattr(first, field), getattr(other, field)
            if ours != theirs:
                raise UsageError(
                    f"the task '{other.tasks[0]}' has {field} {theirs}, the task '{first.tasks[0]}' {ours}; "
                    "tasks of one pack sample in the same way: export checkpoints of one chain"
                )


def _in_joined(pack: TaskPack, folder: Path, joined: Mapping[str, Joined]) -> Manifest:
    """The manifest of a task, with its files in the joined pack; its golden restorations are copied."""
    golden, graphs = dict[str, Golden](), dict(pack.manifest.graphs)
    for name, restoration in pack.manifest.golden.items():
        place = Path(restoration.file.file)
        file = (place.parent / (pack.prefix + place.name)).as_posix()
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(pack.folder / place, folder / file)
        golden[name] = replace(restoration, file=packed_file(folder, file))
    for graph, spec in graphs.items():
        new = {
            target: {label: joined[target][pack.task, graph, label] for label in labels}
            for target, labels in spec.files.items()
        }
        files = {target: {label: written.file for label, written in own.items()} for target, own in new.items()}
        parts = {target: {label: written.parts for label, written in own.items()} for target, own in new.items()}
        functions = {written.function for own in new.values() for written in own.values()} - {""}
        graphs[graph] = replace(spec, files=files, parts=parts, function=next(iter(functions), ""))
    return replace(pack.manifest, golden=golden, graphs=graphs)
